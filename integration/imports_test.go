// Package integration holds the tests that need more than one package: what
// may import what, the demo, and attempts to see what is foreign.
package integration

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"
)

const module = "jailtap"

// A rule says what the packages of one folder, without their tests, may import
// beside the standard library and each other.
type rule struct {
	folder string
	may    []string // import paths, or folders of ours with what is below them
	why    string
}

// rules are searched in order: the first folder that holds a package counts.
var rules = []rule{
	{"bpf/ebpf", []string{"bpf", "golang.org/x/net/bpf", "github.com/cilium/ebpf"},
		"translation is pure: it describes programs and maps and loads none"},
	{"bpf/pcapexpr", []string{"bpf", "golang.org/x/net/bpf"},
		"the one place that needs cgo must be easy to leave out"},
	{"bpf", []string{"golang.org/x/net/bpf"},
		"the core that decides is the same bytes on every system: no operating system, no cgo"},
	{"nsjail/confine", []string{"internal/progmaps", "github.com/cilium/ebpf", "golang.org/x/sys/unix"},
		"it holds a cgroup to addresses, and knows neither jails nor where the addresses come from"},
	{"nsjail/jail", []string{"nsjail", "github.com/fsnotify/fsnotify", "github.com/google/nftables", "github.com/vishvananda/netlink", "github.com/vishvananda/netns", "golang.org/x/net/bpf", "golang.org/x/sys/unix"},
		"it makes jails of namespaces from plain data; what a configuration or a capture is, it does not know"},
	{"nsjail/world", []string{"github.com/cavaliergopher/cpio", "github.com/goccy/go-yaml", "github.com/google/go-containerregistry", "golang.org/x/sync", "golang.org/x/sys/unix"},
		"it copies files, and knows neither jails nor packets"},
	{"nsjail", []string{"github.com/vishvananda/netlink", "github.com/vishvananda/netns", "golang.org/x/sys/unix"},
		"it reports addresses and namespaces and does not know what they are used for"},
	{"loader/agent/oci", []string{"loader/agent", "github.com/opencontainers/runtime-spec", "golang.org/x/sys/unix", "golang.org/x/time/rate"},
		"it speaks with container runtimes and leaves what a container may see to its caller; sockets are its agent's business"},
	{"loader/broker", []string{"bpf", "loader", "golang.org/x/sys/unix", "golang.org/x/time/rate"},
		"it hands out what the loader makes; whose a process is, its caller says"},
	{"loader", []string{"bpf", "internal/captured", "internal/progmaps", "github.com/cilium/ebpf", "github.com/mdlayher/netlink", "github.com/vishvananda/netlink", "golang.org/x/net/bpf", "golang.org/x/sync/errgroup", "golang.org/x/sys/unix"},
		"it attaches what bpf has decided and proved; whose namespace it is in comes as an interface"},
	{"compat/conform/kernel", []string{"bpf", "compat/conform", "loader", "internal/netlab", "github.com/cilium/ebpf", "golang.org/x/sys/unix"},
		"it asks the operating system what compat/conform asks the reference: by sockets, test runs, and a capture on a wire of its own"},
	{"compat/jailconf", nil,
		"a jail's configuration is text, to be read on any system; what it asks for is carried out elsewhere"},
	{"compat", []string{"bpf", "golang.org/x/net/bpf"},
		"jail configurations and vectors are data, to be read on any system"},
	{"internal/capfile", []string{"bpf", "internal/captured"},
		"capture files are bytes and a link type"},
	{"internal/captured", nil,
		"it is what a capture and a file have in common, so that neither knows the other"},
	{"internal/progmaps", []string{"github.com/cilium/ebpf"},
		"it finds maps, and does not know what is in them"},
	{"internal/packetline", []string{"bpf", "github.com/gopacket/gopacket"},
		"a line of text about a packet is made of its bytes"},
	{"internal/netlab", []string{"github.com/vishvananda/netlink", "github.com/vishvananda/netns", "golang.org/x/sys/unix"},
		"what the tests stand on must not be what they test"},
	{"internal/testutil", []string{"internal/netlab"},
		"what the tests stand on must not be what they test"},
	{"cmd/jailtap", []string{"bpf", "loader", "nsjail", "compat", "internal/capfile", "internal/packetline",
		"github.com/spf13/cobra", "github.com/spf13/pflag", "github.com/gopacket/gopacket", "golang.org/x/net/bpf", "github.com/goccy/go-yaml",
		"github.com/coreos/go-systemd/v22", "golang.org/x/sys/unix"},
		"it joins the others and talks; raw netlink and eBPF are for the packages below"},
	{"integration", nil,
		"tests, demo and benchmarks may import everything, and nothing imports them"},
}

// A listed package is what `go list -json` prints of it.
type listed struct {
	ImportPath string
	Imports    []string
	CgoFiles   []string
}

func TestPackagesImportOnlyWhatTheyMay(t *testing.T) {
	for _, pkg := range list(t) {
		name := strings.TrimPrefix(pkg.ImportPath, module+"/")
		i := slices.IndexFunc(rules, func(r rule) bool { return within(name, r.folder) })
		if i < 0 {
			t.Errorf("%s: no rule says what it may import; add one, with its reason", name)
			continue
		}
		r := rules[i]
		if len(pkg.CgoFiles) > 0 && r.folder != "bpf/pcapexpr" {
			t.Errorf("%s uses cgo, which only bpf/pcapexpr does", name)
		}
		if r.folder == "integration" {
			continue
		}
		for _, imported := range pkg.Imports {
			if !allowed(r, imported) {
				t.Errorf("%s imports %s, but %s", name, imported, r.why)
			}
		}
	}
}

// TestOnlyTheBenchmarksDraw: a library for figures is nothing that users need.
func TestOnlyTheBenchmarksDraw(t *testing.T) {
	for _, pkg := range list(t) {
		for _, imported := range pkg.Imports {
			if strings.HasPrefix(imported, "gonum.org/") && pkg.ImportPath != module+"/integration/bench" {
				t.Errorf("%s imports %s", pkg.ImportPath, imported)
			}
		}
	}
}

func TestTheCoreUsesNoOperatingSystem(t *testing.T) {
	for _, pkg := range list(t) {
		if pkg.ImportPath != module+"/bpf" && pkg.ImportPath != module+"/bpf/ebpf" {
			continue
		}
		for _, imported := range pkg.Imports {
			if slices.Contains([]string{"os", "os/exec", "net", "syscall", "unsafe", "C"}, imported) {
				t.Errorf("%s imports %s", pkg.ImportPath, imported)
			}
		}
	}
}

// allowed reports whether a package under r may import a path.
func allowed(r rule, imported string) bool {
	if first, _, _ := strings.Cut(imported, "/"); !strings.Contains(first, ".") && first != module {
		return true // the standard library, "C"
	}
	imported = strings.TrimPrefix(imported, module+"/")
	if within(imported, r.folder) {
		return true
	}
	return slices.ContainsFunc(r.may, func(folder string) bool { return within(imported, folder) })
}

// within reports whether name is folder or below it.
func within(name, folder string) bool {
	return name == folder || strings.HasPrefix(name, folder+"/")
}

// list is every package of ours as built on this system.
func list(t *testing.T) []listed {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports,CgoFiles", path.Join(module, "..."))
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		errors.As(err, &exit)
		t.Fatalf("go list: %v\n%s", err, exit.Stderr)
	}
	var all []listed
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var pkg listed
		if err := d.Decode(&pkg); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, pkg)
	}
	if len(all) < len(rules)-1 {
		t.Fatalf("go list found %d packages only", len(all))
	}
	return all
}
