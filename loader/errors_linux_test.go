package loader

import (
	"errors"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"jailtap/internal/testutil"
)

// without runs f on a thread of its own without some of its capabilities.
func without(t *testing.T, f func(), caps ...int) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var data [2]unix.CapUserData
		if err := unix.Capget(&header, &data[0]); err != nil {
			t.Error(err)
			return
		}
		for _, c := range caps {
			data[c/32].Effective &^= 1 << (c % 32)
		}
		if err := unix.Capset(&header, &data[0]); err != nil {
			t.Error(err)
			return
		}
		f()
	}()
	<-done
}

func TestAMissingCapabilityIsAnErrorThatSaysHowToGrantIt(t *testing.T) {
	testutil.NeedRoot(t)
	for _, c := range []struct {
		capability int
		name       string
		cfg        Config
	}{
		{unix.CAP_NET_RAW, "CAP_NET_RAW", Config{Interface: "lo", Scope: scopeOf(1)}},
		{unix.CAP_BPF, "CAP_BPF", Config{Interface: "lo", Scope: scopeOf(1), Engine: EBPF}},
	} {
		var err error
		without(t, func() { _, err = Open(c.cfg) }, c.capability, unix.CAP_SYS_ADMIN)
		var denied *PrivilegeError
		if !errors.As(err, &denied) || denied.Capability != c.name || !strings.Contains(err.Error(), "setcap "+strings.ToLower(c.name)+"+ep") {
			t.Errorf("without %s: %v", c.name, err)
		}
	}
}

func TestAutoGoesWithoutEBPFWhereItMayNotLoadIt(t *testing.T) {
	testutil.NeedRoot(t)
	without(t, func() {
		tap, err := Open(Config{Interface: "lo", Scope: scopeOf(1), ScopeChanges: true})
		if err != nil {
			t.Error(err)
			return
		}
		defer tap.Close()
		if tap.Engine() != CBPF || !strings.Contains(tap.Reason(), "CAP_BPF") {
			t.Errorf("%s: %s", tap.Engine(), tap.Reason())
		}
	}, unix.CAP_BPF, unix.CAP_SYS_ADMIN)
}

func TestAnUnknownEngineIsAnErrorThatNamesTheKnown(t *testing.T) {
	testutil.NeedRoot(t)
	_, err := Open(Config{Interface: "lo", Engine: "xbpf"})
	if err == nil || !strings.Contains(err.Error(), `"xbpf": known are auto, cbpf, ebpf`) {
		t.Error(err)
	}
}
