//go:build amd64 || arm64

package jail

import (
	"bytes"
	"errors"
	"fmt"
	"os"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// natTable is a jail's own table of nft(8), which goes as a whole.
func (rec *record) natTable() *nftables.Table {
	return &nftables.Table{Family: nftables.TableFamilyINet, Name: "jailtap-" + rec.Spec.Name}
}

// setNAT gives what leaves the host from the jail's addresses the host's, or, if the
// jail is not to have that, does nothing. Rules that are there are replaced at once.
func (rec *record) setNAT() error {
	if !rec.Spec.Link.NAT {
		return nil
	}
	if err := rec.forwards(); err != nil {
		return err
	}
	c := &nftables.Conn{}
	table := c.AddTable(rec.natTable())
	c.FlushTable(table)
	chain := c.AddChain(&nftables.Chain{
		Table: table, Name: "postrouting", Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource,
	})
	for _, a := range rec.Spec.Addresses {
		c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: rec.masquerade(a)})
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("vnet.nat: %w: it needs CONFIG_NFT_MASQ", err)
	}
	return nil
}

// forwards reports whether the host passes packets on.
func (rec *record) forwards() error {
	for _, a := range rec.Spec.Addresses {
		name, path := "net.ipv4.ip_forward", "/proc/sys/net/ipv4/ip_forward"
		if a.Prefix.Addr().Is6() {
			name, path = "net.ipv6.conf.all.forwarding", "/proc/sys/net/ipv6/conf/all/forwarding"
		}
		on, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("vnet.nat: %w", err)
		}
		if string(bytes.TrimSpace(on)) == "0" {
			return fmt.Errorf("vnet.nat: the host does not pass packets on: if it is to, sysctl -w %s=1", name)
		}
	}
	return nil
}

// masquerade is `ip saddr ADDRESS oifname != BRIDGE masquerade` (RFC 791 and RFC 8200
// have where the source is).
func (rec *record) masquerade(a Address) []expr.Any {
	proto, offset := byte(unix.NFPROTO_IPV4), uint32(12)
	if a.Prefix.Addr().Is6() {
		proto, offset = unix.NFPROTO_IPV6, 8
	}
	source := a.Prefix.Addr().AsSlice()
	bridge := make([]byte, unix.IFNAMSIZ)
	copy(bridge, rec.Bridge)
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
		&expr.Cmp{Register: 1, Op: expr.CmpOpEq, Data: []byte{proto}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: uint32(len(source))},
		&expr.Cmp{Register: 1, Op: expr.CmpOpEq, Data: source},
		&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: 1},
		&expr.Cmp{Register: 1, Op: expr.CmpOpNeq, Data: bridge},
		&expr.Masq{},
	}
}

// removeNAT removes the jail's table; that there is none is no error, nor that there is
// no nftables.
func (rec *record) removeNAT() error {
	if !rec.Spec.Link.NAT {
		return nil
	}
	c := &nftables.Conn{}
	c.DelTable(rec.natTable())
	if err := c.Flush(); err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EPROTONOSUPPORT) {
		return fmt.Errorf("vnet.nat: remove the table %s: %w", rec.natTable().Name, err)
	}
	return nil
}
