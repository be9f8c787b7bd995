package vectors_test

import (
	"flag"
	"os"
	"strings"
	"testing"

	"jailtap/bpf"
	"jailtap/compat/vectors"
)

var files = flag.String("files", "", "vector files to check in place of the embedded ones, separated by commas")

var (
	linux   = bpf.VM{Dialect: bpf.Linux}
	flat    = bpf.VM{Dialect: bpf.FreeBSD}
	receive = bpf.VM{Dialect: bpf.FreeBSD, Receive: true}
)

func load(t *testing.T) vectors.Set {
	t.Helper()
	if *files == "" {
		set, err := vectors.Public()
		if err != nil {
			t.Fatal(err)
		}
		return set
	}
	var set vectors.Set
	for name := range strings.SplitSeq(*files, ",") {
		file, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		if err := set.Read(name, file); err != nil {
			t.Fatal(err)
		}
	}
	return set
}

// A tally counts comparisons by name, since a loop that compares nothing
// passes too.
type tally map[string]int

// check compares the count with what the embedded files are known to hold.
func (n tally) check(t *testing.T, want tally) {
	t.Helper()
	t.Logf("compared %v", map[string]int(n))
	if *files != "" {
		return
	}
	for name := range n {
		if n[name] != want[name] {
			t.Errorf("compared %d times %s, want %d", n[name], name, want[name])
		}
	}
	for name := range want {
		if n[name] == 0 {
			t.Errorf("never compared %s", name)
		}
	}
}

// verdict is an assertion; label says what was compared.
func (n tally) verdict(t *testing.T, id, label string, got, want uint32) {
	t.Helper()
	n[label]++
	if got != want {
		t.Errorf("%s: %s: %d, want %d", id, label, got, want)
	}
}

func (n tally) truth(t *testing.T, id, label string, got, want bool) {
	t.Helper()
	n[label]++
	if got != want {
		t.Errorf("%s: %s: %v, want %v", id, label, got, want)
	}
}

// orElse is the value that the vector gives only where it is not the usual one.
func orElse(special *uint32, usual uint32) uint32 {
	if special != nil {
		return *special
	}
	return usual
}

// linuxVerdict compares what Linux does with what a vector says about that.
func (n tally) linuxVerdict(t *testing.T, id string, p bpf.Program, pkt bpf.Packet, says vectors.Linux, ret uint32) {
	t.Helper()
	refused := p.Validate(bpf.Linux) != nil
	n.truth(t, id, "refused by Linux", refused, says == vectors.LinuxRefuses)
	if refused {
		return
	}
	got := linux.Run(p, pkt)
	if says == vectors.LinuxDiffers {
		n.truth(t, id, "different on Linux", got != ret, true)
		return
	}
	n.verdict(t, id, "Linux", got, ret)
}

func TestTheVMDoesWhatFreeBSDsInterpreterDoes(t *testing.T) {
	n := tally{}
	for _, v := range load(t).Interp {
		p := bpf.Program(v.Prog)
		n.truth(t, v.ID, "valid", p.Validate(bpf.FreeBSD) == nil, v.Valid)
		if !v.Valid {
			n.truth(t, v.ID, "valid nowhere", p.Validate(bpf.Linux) == nil, false)
			continue
		}
		n.verdict(t, v.ID, "flat", flat.Run(p, v.Packet()), v.Ret)
		n.verdict(t, v.ID, "mbuf", receive.Run(p, v.Packet()), orElse(v.RetMbuf, v.Ret))
		n.linuxVerdict(t, v.ID, p, v.Packet(), v.Linux, v.Ret)
	}
	n.check(t, tally{"valid": 3584, "valid nowhere": 515, "flat": 3069, "mbuf": 3069,
		"refused by Linux": 3069, "different on Linux": 23, "Linux": 2777})
}

func TestTheLengthLimitsAreThoseOfTheKernels(t *testing.T) {
	n := tally{}
	for _, v := range load(t).Limit {
		p := bpf.Program(v.Prog)
		n.truth(t, v.ID, "FreeBSD takes it", p.Validate(bpf.FreeBSD) == nil, v.FreeBSDAttach)
		n.truth(t, v.ID, "Linux takes it", p.Validate(bpf.Linux) == nil, v.LinuxAttach)
		for _, vm := range []bpf.VM{flat, receive, linux} {
			n.verdict(t, v.ID, "verdict", vm.Run(p, v.Packet()), v.Ret)
		}
	}
	n.check(t, tally{"FreeBSD takes it": 6, "Linux takes it": 6, "verdict": 18})
}

func TestUserProgramsAndScopesAloneAreAsInTheVectors(t *testing.T) {
	n := tally{}
	for _, v := range load(t).Scope {
		user := bpf.Program(v.User)
		if err := user.Validate(bpf.FreeBSD); err != nil {
			t.Errorf("%s: %v", v.ID, err)
		}
		n.truth(t, v.ID, "scope", v.Scope().Match(bpf.LinkType(v.LinkType), v.Pkt), v.WantScope)
		n.verdict(t, v.ID, "flat", flat.Run(user, v.Packet()), v.WantUser)
		if int(v.WireLen) == len(v.Pkt) { // there is no cut frame on a Linux socket
			n.linuxVerdict(t, v.ID, user, v.Packet(), v.LinuxUser, v.WantUser)
		}
		// want_mbuf is about the conjunction: of the user program alone it
		// says something only where that is in scope.
		if v.WantScope {
			n.verdict(t, v.ID, "mbuf", receive.Run(user, v.Packet()), orElse(v.WantMbuf, v.WantUser))
		}
	}
	n.check(t, tally{"scope": 4928, "flat": 4928, "mbuf": 2387,
		"refused by Linux": 3685, "different on Linux": 5, "Linux": 3662})
}

// The kernel ran programs on what is present of the packet, as if it were all.
func TestTheVMDoesWhatAFreeBSDKernelDoes(t *testing.T) {
	set := load(t)
	type vector struct {
		p     bpf.Program
		pkt   vectors.Bytes
		scope vectors.Scope
	}
	known := map[string]vector{}
	for _, v := range set.Interp {
		known["interp "+v.ID] = vector{p: bpf.Program(v.Prog), pkt: v.Pkt}
	}
	for _, v := range set.Limit {
		known["limits "+v.ID] = vector{p: bpf.Program(v.Prog), pkt: v.Pkt}
	}
	for _, v := range set.Scope {
		file := map[string]string{"scope": "scope ", "scope-limit": "limits "}[v.Kind]
		known[file+v.ID] = vector{bpf.Program(v.User), v.Pkt, v}
	}
	n := tally{}
	for _, k := range set.Kernel {
		v, ok := known[k.File+" "+k.ID]
		if !ok {
			n["without a vector"]++
			continue
		}
		size := uint32(len(v.pkt))
		caplen := func(p bpf.Program) uint32 {
			return min(receive.Run(p, bpf.Packet{Data: v.pkt, WireLen: size}), size)
		}
		n.truth(t, k.ID, "valid", v.p.Validate(bpf.FreeBSD) == nil, k.Valid)
		if k.Ran {
			n.verdict(t, k.ID, "caplen", caplen(v.p), k.Caplen)
		}
		if k.ConjCaplen != nil {
			n.verdict(t, k.ID, "conjunction", caplen(compile(t, v.scope, bpf.FreeBSD)), *k.ConjCaplen)
		}
	}
	n.check(t, tally{"valid": 8518, "caplen": 6027, "conjunction": 3732})
}
