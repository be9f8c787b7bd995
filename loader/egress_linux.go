package loader

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// An egress is the second guard on sending in a namespace: a netfilter chain on
// what leaves by any interface. What goes past queueing disciplines and tcx, as
// PACKET_QDISC_BYPASS makes it, does not go past netfilter (packet_xmit in
// net/packet/af_packet.c); and the kernel puts it on an interface before there is
// anybody who could send there (nf_tables_netdev_event in
// net/netfilter/nft_chain_filter.c).
//
// What nft(8) would show as
//
//	table netdev jailtap {
//		chain egress {
//			type filter hook egress devices = { "*" } priority -2147483648; policy accept;
//			meta mark 0x6a746170 drop
//		}
//	}
//
// lasts until it is deleted. While the process lives that has made it, it is
// that process's alone, so that no "flush ruleset" deletes it.
type egress struct {
	table string
	conn  *netlink.Conn // its owner
}

// Of linux/netfilter/nf_tables.h, where x/sys/unix does not have it.
const (
	tableOwned      = 2 // NFT_TABLE_F_OWNER, Linux 5.12
	tablePersists   = 4 // NFT_TABLE_F_PERSIST, Linux 6.9
	hookEgress      = 1 // NF_NETDEV_EGRESS, Linux 5.16
	hookDevices     = 4 // NFTA_HOOK_DEVS
	devicePrefix    = 2 // NFTA_DEVICE_PREFIX, Linux 6.18
	allDevices      = "\x00"
	firstOfAll      = 1 << 31 // priority, the smallest int32
	verdictDrop     = 0       // NF_DROP, of linux/netfilter.h
	verdictAccept   = 1
	egressChainName = "egress"
)

// guardEgress sees to the chain in the namespace of the calling thread.
// errors.ErrUnsupported: this kernel has nothing of the kind.
func guardEgress(table string) (*egress, error) {
	e := &egress{table: table}
	err := e.ask(e.newTable(netlink.Excl), e.newChain(), e.newRule())
	if errors.Is(err, unix.EEXIST) { // nobody owns it any more
		err = e.ask(e.newTable(0))
	}
	if errors.Is(err, unix.EPERM) { // somebody else owns it, or we may do nothing of the kind
		err = e.isThere()
	}
	if err != nil {
		e.close()
		return nil, fmt.Errorf("the guard on sending past queues (netfilter egress): %w", unsupported(err))
	}
	return e, nil
}

// isThere asks for the chain. Table, chain and rule were made together.
func (e *egress) isThere() error {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return err
	}
	defer conn.Close()
	get := message(unix.NFT_MSG_GETCHAIN, 0, func(a *netlink.AttributeEncoder) {
		a.String(unix.NFTA_CHAIN_TABLE, e.table)
		a.String(unix.NFTA_CHAIN_NAME, egressChainName)
	})
	get.Header.Flags = netlink.Request
	_, err = conn.Execute(get)
	return err
}

// unsupported tells kernels that do not know what they are asked for.
func unsupported(err error) error {
	for _, errno := range []unix.Errno{unix.EINVAL, unix.EOPNOTSUPP, unix.EAFNOSUPPORT, unix.EPROTONOSUPPORT, unix.ENOENT} {
		if errors.Is(err, errno) {
			return fmt.Errorf("%w: %w: it needs Linux 6.18 with CONFIG_NF_TABLES_NETDEV and CONFIG_NETFILTER_EGRESS", errors.ErrUnsupported, err)
		}
	}
	return err
}

// remove deletes the table, unless it is another process's.
func (e *egress) remove() error {
	err := e.ask(message(unix.NFT_MSG_DELTABLE, 0, func(a *netlink.AttributeEncoder) {
		a.String(unix.NFTA_TABLE_NAME, e.table)
	}))
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOENT) {
		return nil
	}
	return unsupported(err)
}

// close gives the table up, which stays.
func (e *egress) close() {
	if e.conn != nil {
		e.conn.Close()
		e.conn = nil
	}
}

// ask sends a transaction, which is carried out as a whole or not at all. The
// first, and the first after an error, is in the namespace of the calling thread.
func (e *egress) ask(messages ...netlink.Message) (err error) {
	if e.conn == nil {
		if e.conn, err = netlink.Dial(unix.NETLINK_NETFILTER, nil); err != nil {
			return err
		}
	}
	all := append([]netlink.Message{bracket(unix.NFNL_MSG_BATCH_BEGIN)}, messages...)
	if _, err := e.conn.SendMessages(append(all, bracket(unix.NFNL_MSG_BATCH_END))); err != nil {
		return err
	}
	for range messages {
		if _, err := e.conn.Receive(); err != nil {
			e.close() // other answers may come, or not
			return err
		}
	}
	return nil
}

// bracket is the first or last message of a transaction.
func bracket(kind netlink.HeaderType) netlink.Message {
	header := netlink.Header{Type: kind, Flags: netlink.Request}
	return netlink.Message{Header: header, Data: []byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, unix.NFNL_SUBSYS_NFTABLES}}
}

func message(kind int, flags netlink.HeaderFlags, attributes func(*netlink.AttributeEncoder)) netlink.Message {
	a := netlink.NewAttributeEncoder()
	attributes(a)
	data, err := a.Encode()
	if err != nil {
		panic(err) // of what is written here, nothing can be too long
	}
	return netlink.Message{
		Header: netlink.Header{
			Type:  netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | kind),
			Flags: netlink.Request | netlink.Acknowledge | netlink.Create | flags,
		},
		Data: append([]byte{unix.NFPROTO_NETDEV, unix.NFNETLINK_V0, 0, 0}, data...),
	}
}

func (e *egress) newTable(flags netlink.HeaderFlags) netlink.Message {
	return message(unix.NFT_MSG_NEWTABLE, flags, func(a *netlink.AttributeEncoder) {
		a.String(unix.NFTA_TABLE_NAME, e.table)
		a.Bytes(unix.NFTA_TABLE_FLAGS, bigEndian(tableOwned|tablePersists))
	})
}

func (e *egress) newChain() netlink.Message {
	return message(unix.NFT_MSG_NEWCHAIN, 0, func(a *netlink.AttributeEncoder) {
		a.String(unix.NFTA_CHAIN_TABLE, e.table)
		a.String(unix.NFTA_CHAIN_NAME, egressChainName)
		nest(a, unix.NFTA_CHAIN_HOOK, func(a *netlink.AttributeEncoder) {
			a.Bytes(unix.NFTA_HOOK_HOOKNUM, bigEndian(hookEgress))
			a.Bytes(unix.NFTA_HOOK_PRIORITY, bigEndian(firstOfAll))
			nest(a, hookDevices, func(a *netlink.AttributeEncoder) { a.Bytes(devicePrefix, []byte(allDevices)) })
		})
		a.Bytes(unix.NFTA_CHAIN_POLICY, bigEndian(verdictAccept))
		a.String(unix.NFTA_CHAIN_TYPE, "filter")
	})
}

// newRule drops what has the mark: load it into a register, compare, verdict.
func (e *egress) newRule() netlink.Message {
	const register = unix.NFT_REG_1
	return message(unix.NFT_MSG_NEWRULE, netlink.Append, func(a *netlink.AttributeEncoder) {
		a.String(unix.NFTA_RULE_TABLE, e.table)
		a.String(unix.NFTA_RULE_CHAIN, egressChainName)
		nest(a, unix.NFTA_RULE_EXPRESSIONS, func(a *netlink.AttributeEncoder) {
			expression(a, "meta", func(a *netlink.AttributeEncoder) {
				a.Bytes(unix.NFTA_META_DREG, bigEndian(register))
				a.Bytes(unix.NFTA_META_KEY, bigEndian(unix.NFT_META_MARK))
			})
			expression(a, "cmp", func(a *netlink.AttributeEncoder) {
				a.Bytes(unix.NFTA_CMP_SREG, bigEndian(register))
				a.Bytes(unix.NFTA_CMP_OP, bigEndian(unix.NFT_CMP_EQ))
				nest(a, unix.NFTA_CMP_DATA, func(a *netlink.AttributeEncoder) { a.Uint32(unix.NFTA_DATA_VALUE, captiveMark) })
			})
			expression(a, "immediate", func(a *netlink.AttributeEncoder) {
				a.Bytes(unix.NFTA_IMMEDIATE_DREG, bigEndian(unix.NFT_REG_VERDICT))
				nest(a, unix.NFTA_IMMEDIATE_DATA, func(a *netlink.AttributeEncoder) {
					nest(a, unix.NFTA_DATA_VERDICT, func(a *netlink.AttributeEncoder) {
						a.Bytes(unix.NFTA_VERDICT_CODE, bigEndian(verdictDrop))
					})
				})
			})
		})
	})
}

func expression(a *netlink.AttributeEncoder, name string, data func(*netlink.AttributeEncoder)) {
	nest(a, unix.NFTA_LIST_ELEM, func(a *netlink.AttributeEncoder) {
		a.String(unix.NFTA_EXPR_NAME, name)
		nest(a, unix.NFTA_EXPR_DATA, data)
	})
}

func nest(a *netlink.AttributeEncoder, kind uint16, inside func(*netlink.AttributeEncoder)) {
	a.Nested(kind, func(a *netlink.AttributeEncoder) error {
		inside(a)
		return nil
	})
}

// bigEndian is a number as nf_tables wants it; only data in packets' order and
// marks, which are the CPU's, differ.
func bigEndian(v uint32) []byte { return binary.BigEndian.AppendUint32(nil, v) }
