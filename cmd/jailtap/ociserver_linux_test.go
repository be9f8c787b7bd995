//go:build amd64 || arm64

package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"jailtap/internal/testutil"
	"jailtap/loader"
	"jailtap/loader/agent/oci"
)

// serveOCI names the socket that the test binary serves if it is a daemon.
const serveOCI = "JAILTAP_TEST_OCI"

func init() {
	if path := os.Getenv(serveOCI); path != "" {
		if err := ociDaemon(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
}

func ociDaemon(path string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	warden, err := loader.OpenWarden(loader.WardenConfig{})
	if err != nil {
		return err
	}
	defer warden.Close()
	a := &app{stdout: io.Discard, stderr: os.Stderr}
	server, err := a.ociServer(warden, slog.New(slog.NewTextHandler(os.Stderr, nil)))
	if err != nil {
		return err
	}
	l, err := oci.Listen(path)
	if err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, "ready")
	return server.Serve(ctx, l)
}

// A daemon serves containers in its namespace.
type daemon struct {
	*process
	socket string
}

func startDaemon(t *testing.T, host *testutil.Namespace, socket string) *daemon {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	d := &daemon{startIn(t, host, exec.Command("env", serveOCI+"="+socket, self)), socket}
	t.Cleanup(func() {
		if d.ProcessState == nil {
			d.end(syscall.SIGTERM)
		}
		if t.Failed() {
			t.Log(d.stderr.String())
		}
	})
	d.waitFor(&d.stderr, "ready")
	return d
}

// hostLab is a host with a daemon, of which a network interface is tap, and what
// is at the other end of the wire.
func hostLab(t *testing.T) (host, outside *testutil.Namespace, d *daemon) {
	t.Helper()
	host, outside = lab(t)
	return host, outside, startDaemon(t, host, filepath.Join(t.TempDir(), "oci.sock"))
}

// capture5 is a script that captures as many packets and has a line for each.
const capture5 = "tcpdump -lni tap -c 5 udp"

// untilItEnds sends, from outside, ten times as much to the neighbour 10.0.0.2 as
// to 10.0.0.1, until a process has ended.
func untilItEnds(t *testing.T, outside *testutil.Namespace, p *process) result {
	t.Helper()
	ended := make(chan result)
	go func() { ended <- p.end(0) }()
	round := [][]byte{testutil.UDP4(noisy, web, []byte("mine"))}
	for range 10 {
		round = append(round, testutil.UDP4(noisy, db, []byte("foreign")))
	}
	for {
		select {
		case r := <-ended:
			return r
		case <-time.After(2 * time.Millisecond):
			outside.Inject(t, "out", round...)
		}
	}
}

// mustHaveCaptured checks that there are five packets, all to one address.
func mustHaveCaptured(t *testing.T, r result, to string) {
	t.Helper()
	if r.mustSucceed(t); strings.Count(r.stdout, "\n") != 5 || strings.Count(r.stdout, " > "+to+".") != 5 {
		t.Errorf("want five packets to %s\n%s\n%s", to, r.stdout, r.stderr)
	}
}

func TestContainersOnTheHostsNetworkSeeTheirAddressesAndNoOthers(t *testing.T) {
	eachRuntime(t, func(t *testing.T, runtime string) {
		host, outside, d := hostLab(t)
		profile := "--listener " + d.socket
		one := newContainer(t, runtime, host, "one", capture5).profile(profile).annotate(ociAddress, "10.0.0.1").start()
		two := newContainer(t, runtime, host, "two", capture5).profile(profile).annotate(ociAddress, "10.0.0.2").start()
		one.waitFor(&one.stderr, "listening on")
		two.waitFor(&two.stderr, "listening on")
		mustHaveCaptured(t, untilItEnds(t, outside, one), "10.0.0.1")
		mustHaveCaptured(t, untilItEnds(t, outside, two), "10.0.0.2")
	})
}

// What an engine leaves to user 0, without CAP_NET_RAW. tcpdump gives up being
// user 0 with it, as it does anywhere.
func TestTcpdumpOfUser0InAContainerBecomesItsOtherUser(t *testing.T) {
	eachRuntime(t, func(t *testing.T, runtime string) {
		host, outside, d := hostLab(t)
		c := newContainer(t, runtime, host, "root", capture5).profile("--listener "+d.socket).annotate(ociAddress, "10.0.0.1")
		caps := []string{"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_KILL", "CAP_SETGID", "CAP_SETUID", "CAP_SETPCAP"}
		c.spec.Process.User = specs.User{}
		c.spec.Process.Capabilities = &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps}
		c.spec.Process.NoNewPrivileges = false
		p := c.start()
		p.waitFor(&p.stderr, "listening on")
		mustHaveCaptured(t, untilItEnds(t, outside, p), "10.0.0.1")
	})
}

func TestWhatAProfileSaysOutweighsTheAnnotations(t *testing.T) {
	eachRuntime(t, func(t *testing.T, runtime string) {
		host, outside, d := hostLab(t)
		p := newContainer(t, runtime, host, "said", capture5).profile("-a 10.0.0.1 --listener "+d.socket).annotate(ociAddress, "10.0.0.0/24").start()
		p.waitFor(&p.stderr, "listening on")
		mustHaveCaptured(t, untilItEnds(t, outside, p), "10.0.0.1")
	})
}

func TestAContainerWithANetworkNamespaceOfItsOwnSeesItsAddressesAsTheyChange(t *testing.T) {
	eachRuntime(t, func(t *testing.T, runtime string) {
		host, _, d := hostLab(t)
		own, outside := lab(t)
		own.AddAddr(t, "tap", "10.0.0.7/24")
		c := newContainer(t, runtime, host, "own", capture5).profile("--listener " + d.socket)
		c.spec.Linux.Namespaces = append(c.spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: own.Path})
		p := c.start()
		p.waitFor(&p.stderr, "listening on")
		outside.Inject(t, "out", testutil.UDP4(noisy, web, []byte("not yet")))
		own.AddAddr(t, "tap", "10.0.0.1/24")
		d.waitFor(&d.stderr, `follows=true scope="addresses 10.0.0.7, policy full"`)
		mustHaveCaptured(t, untilItEnds(t, outside, p), "10.0.0.1")
	})
}

func TestProcessesExecutedInAContainerShareItsScope(t *testing.T) {
	eachRuntime(t, func(t *testing.T, runtime string) {
		host, outside, d := hostLab(t)
		c := newContainer(t, runtime, host, "exec", "tcpdump -ni tap -w /dev/null").profile("--listener "+d.socket).annotate(ociAddress, "10.0.0.1")
		first := c.start()
		first.waitFor(&first.stderr, "listening on")
		for n := 2; n < 4; n++ {
			p := c.exec("sh", "-c", capture5)
			p.waitFor(&p.stderr, "listening on")
			mustHaveCaptured(t, untilItEnds(t, outside, p), "10.0.0.1")
			log := d.stderr.String()
			if strings.Count(log, "container served") != n || strings.Count(log, "scope of a container") != 1 {
				t.Errorf("%s", log)
			}
		}
	})
}

func TestAContainerThatIsRefusedGetsNoPacketSocket(t *testing.T) {
	eachRuntime(t, func(t *testing.T, runtime string) {
		host, _, d := hostLab(t)
		for name, c := range map[string]struct {
			annotations map[string]string
			why         string
		}{
			"nothing":    {nil, "names its addresses"},
			"no-address": {map[string]string{ociAddress: ""}, `bad address \"\"`},
			"a-file":     {map[string]string{ociAddress: "@/etc/passwd"}, `bad prefix \"@/etc/passwd\"`},
			"bad-policy": {map[string]string{ociAddress: "10.0.0.1", ociPolicy: "most"}, `unknown policy \"most\"`},
		} {
			box := newContainer(t, runtime, host, name, "tcpdump -ni tap; id -u").profile("--listener " + d.socket)
			box.spec.Annotations = c.annotations
			r := box.start().end(0).mustSucceed(t)
			if !strings.Contains(r.stderr, "Operation not permitted") || r.stdout != "1000\n" {
				t.Errorf("%s: %s%s", name, r.stdout, r.stderr)
			}
			d.waitFor(&d.stderr, c.why)
		}
	})
}

// It is not confined, and its administrator ought to know.
func TestAContainerWithCAP_NET_RAWGetsNoPacketSocket(t *testing.T) {
	eachRuntime(t, func(t *testing.T, runtime string) {
		host, _, d := hostLab(t)
		c := newContainer(t, runtime, host, "raw", "tcpdump -Z root -ni tap").profile("-a 10.0.0.1 --listener " + d.socket)
		caps := []string{"CAP_NET_RAW"}
		c.spec.Process.User = specs.User{}
		c.spec.Process.Capabilities = &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps}
		if r := c.start().end(0); r.status == 0 || !strings.Contains(r.stderr, "Operation not permitted") {
			t.Errorf("%+v", r)
		}
		d.waitFor(&d.stderr, "has CAP_NET_RAW")
	})
}

// It would have a socket of another namespace than the one that it is in.
func TestAProcessInAnotherNamespaceThanItsContainerGetsNoPacketSocket(t *testing.T) {
	eachRuntime(t, func(t *testing.T, runtime string) {
		host, outside, d := hostLab(t)
		const away = "busybox unshare -n tcpdump -Z root -ni lo"
		c := newContainer(t, runtime, host, "away", capture5+" && "+away).profile("--listener "+d.socket).annotate(ociAddress, "10.0.0.1")
		caps := []string{"CAP_SYS_ADMIN", "CAP_SETGID", "CAP_SETUID"}
		c.spec.Process.User = specs.User{}
		c.spec.Process.Capabilities = &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps}
		p := c.start()
		p.waitFor(&p.stderr, "listening on")
		r := untilItEnds(t, outside, p)
		if r.status == 0 || strings.Count(r.stdout, "\n") != 5 || !strings.Contains(r.stderr, "Operation not permitted") {
			t.Errorf("%+v", r)
		}
		d.waitFor(&d.stderr, "is in another network namespace")
	})
}

func TestANamespaceThatAContainerMakesForItselfIsNotItsPlace(t *testing.T) {
	eachRuntime(t, func(t *testing.T, runtime string) {
		host, outside, d := hostLab(t)
		const away = "busybox unshare -r -n tcpdump -Z root -ni lo"
		p := newContainer(t, runtime, host, "nested", away+"; "+capture5).profile("--listener "+d.socket).annotate(ociAddress, "10.0.0.1").start()
		p.waitFor(&p.stderr, "listening on")
		d.waitFor(&d.stderr, "belongs to a user namespace other than the daemon's")
		mustHaveCaptured(t, untilItEnds(t, outside, p), "10.0.0.1")
	})
}

func TestWithoutADaemonAContainerIsNotStarted(t *testing.T) {
	eachRuntime(t, func(t *testing.T, runtime string) {
		host, _ := lab(t)
		c := newContainer(t, runtime, host, "alone", "echo started").profile("-a 10.0.0.1 --listener " + filepath.Join(t.TempDir(), "none.sock"))
		if r := c.start().end(0); r.status == 0 || r.stdout != "" {
			t.Errorf("%+v", r)
		}
	})
}

func TestCaptivesOfContainersStayInScopeWhenTheDaemonIsKilled(t *testing.T) {
	eachRuntime(t, func(t *testing.T, runtime string) {
		host, outside, d := hostLab(t)
		c := newContainer(t, runtime, host, "orphan", capture5+"; tcpdump -ni tap").profile("--listener "+d.socket).annotate(ociAddress, "10.0.0.1")
		p := c.start()
		p.waitFor(&p.stderr, "listening on")
		d.end(syscall.SIGKILL)
		r := untilItEnds(t, outside, p)
		if strings.Count(r.stdout, " > 10.0.0.1.") != 5 || strings.Count(r.stdout, "\n") != 5 || !strings.Contains(r.stderr, "Function not implemented") {
			t.Errorf("%+v", r)
		}
		startDaemon(t, host, d.socket) // in place of the one that was killed; it removes the guards
	})
}
