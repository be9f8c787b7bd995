//go:build amd64 || arm64

package agent

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"jailtap/bpf"
)

// packetSocket is what the programs under the agent ask for.
func packetSocket(flags int) int {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|flags, 0)
	if err != nil {
		fmt.Println("packet socket:", err)
		os.Exit(1)
	}
	return fd
}

func otherSocket() int {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		panic(err)
	}
	return fd
}

func sockFilter(p bpf.Program) []unix.SockFilter {
	insns := make([]unix.SockFilter, len(p))
	for i, in := range p {
		insns[i] = unix.SockFilter{Code: in.Op, Jt: in.Jt, Jf: in.Jf, K: in.K}
	}
	return insns
}

func attach(fd int, p bpf.Program) error {
	insns := sockFilter(p)
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(insns)), Filter: &insns[0]})
}

// setsockopt passes any pointer.
func setsockopt(fd, option int, value unsafe.Pointer, length uintptr) error {
	_, _, errno := unix.Syscall6(unix.SYS_SETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, uintptr(option), uintptr(value), length, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

func TestPacketSocketsAreCaptiveOnes(t *testing.T) {
	s := &setting{user: &User{UID: 65534, GID: 65534}}
	output := s.program(t, "sockets")
	want := "raw: cloexec false, nonblock false, protocol 0x0\n" +
		"raw and both flags: cloexec true, nonblock true, protocol 0x0\n" +
		"datagram of all protocols: cloexec false, nonblock false, protocol 0x3\n" +
		"SOCK_PACKET: protocol not supported\n" +
		"stream: socket type not supported\n" +
		"bad flags: invalid argument\n"
	if output != want {
		t.Errorf("%s\nwant\n%s", output, want)
	}
	if made := s.yard.made; len(made) != 3 || made[0].datagram || made[1].datagram || !made[2].datagram {
		t.Errorf("%+v", made)
	}
}

func init() {
	programs["sockets"] = func([]string) {
		for _, c := range []struct {
			name          string
			typ, protocol int
		}{
			{"raw", unix.SOCK_RAW, 0},
			{"raw and both flags", unix.SOCK_RAW | unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK, 0},
			{"datagram of all protocols", unix.SOCK_DGRAM, int(networkOrder(unix.ETH_P_ALL))},
			{"SOCK_PACKET", unix.SOCK_PACKET, 0},
			{"stream", unix.SOCK_STREAM, 0},
			{"bad flags", unix.SOCK_RAW | 0x20, 0},
		} {
			fd, err := unix.Socket(unix.AF_PACKET, c.typ, c.protocol)
			if err != nil {
				fmt.Printf("%s: %v\n", c.name, err)
				continue
			}
			fdFlags, _ := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
			flags, _ := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
			name, err := unix.Getsockname(fd)
			if err != nil {
				fmt.Println(err)
				continue
			}
			protocol := networkOrder(name.(*unix.SockaddrLinklayer).Protocol)
			fmt.Printf("%s: cloexec %v, nonblock %v, protocol %#x\n", c.name, fdFlags&unix.FD_CLOEXEC != 0, flags&unix.O_NONBLOCK != 0, protocol)
		}
	}
}

func TestIfThereIsNoCaptiveThereIsNoSocket(t *testing.T) {
	s := &setting{yard: &yard{refuse: errors.New("the guard is not to be had")}}
	if output := s.program(t, "sockets"); !strings.HasPrefix(output, "raw: operation not permitted\n") || !strings.Contains(s.log.String(), "the guard is not to be had") {
		t.Errorf("%s\n%s", output, s.log.String())
	}
}

func TestFiltersOfACaptiveGoThroughTheAgent(t *testing.T) {
	s := &setting{}
	output := s.program(t, "filters")
	want := "attach: <nil>\ndetach: <nil>\ndetach again: <nil>\nuntranslatable: operation not supported\n" +
		"eBPF: operation not supported\nunlock: <nil>\nlock: <nil>\nattach a locked one: operation not permitted\n" +
		"detach a locked one: operation not permitted\nunlock a locked one: operation not permitted\n"
	if output != want {
		t.Errorf("%s\nwant\n%s", output, want)
	}
	if got := s.yard.made[0].filters; len(got) != 3 || !slices.Equal(got[0], udp) || got[1] != nil || got[2] != nil {
		t.Errorf("%v", got)
	}
}

func init() {
	programs["filters"] = func([]string) {
		fd := packetSocket(0)
		set := func(option, value int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, option, value) }
		fmt.Println("attach:", attach(fd, udp))
		fmt.Println("detach:", set(unix.SO_DETACH_FILTER, 0))
		fmt.Println("detach again:", set(unix.SO_DETACH_FILTER, 0))
		fmt.Println("untranslatable:", attach(fd, bpf.Program{{Op: 6, K: untranslatable}}))
		fmt.Println("eBPF:", set(unix.SO_ATTACH_BPF, 0))
		fmt.Println("unlock:", set(unix.SO_LOCK_FILTER, 0))
		fmt.Println("lock:", set(unix.SO_LOCK_FILTER, 1))
		fmt.Println("attach a locked one:", attach(fd, udp))
		fmt.Println("detach a locked one:", set(unix.SO_DETACH_FILTER, 0))
		fmt.Println("unlock a locked one:", set(unix.SO_LOCK_FILTER, 0))
	}
}

// The kernel itself says what is wrong with a filter for another socket.
func TestMalformedFiltersGetTheErrorsThatTheKernelGives(t *testing.T) {
	s := &setting{}
	for line := range strings.Lines(s.program(t, "malformed")) {
		name, errs, _ := strings.Cut(strings.TrimSpace(line), ": ")
		if captive, other, _ := strings.Cut(errs, " | "); captive != other || captive == "<nil>" {
			t.Errorf("%s: %s of a captive, %s of another socket", name, captive, other)
		}
	}
	if got := s.yard.made[0].filters; len(got) > 0 {
		t.Errorf("%v", got)
	}
}

func init() {
	programs["malformed"] = func([]string) {
		page := os.Getpagesize()
		area, err := unix.Mmap(-1, 0, 3*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
		if err != nil {
			panic(err)
		}
		unix.Mprotect(area[page:2*page], unix.PROT_NONE)
		edge := func(n int) unsafe.Pointer { return unsafe.Pointer(&area[page-n]) } // n bytes that can be read
		good := sockFilter(udp)
		copy(area[page-16:page], unsafe.Slice((*byte)(unsafe.Pointer(&good[0])), 16))
		captive, other := packetSocket(0), otherSocket()
		for _, c := range []struct {
			name   string
			prog   unix.SockFprog
			length uintptr
		}{
			{"length 0", unix.SockFprog{Len: 0, Filter: &good[0]}, 16},
			{"length 65535", unix.SockFprog{Len: 65535, Filter: &good[0]}, 16},
			{"length 4097", unix.SockFprog{Len: 4097, Filter: &good[0]}, 16},
			{"null pointer", unix.SockFprog{Len: 1}, 16},
			{"half mapped", unix.SockFprog{Len: 6, Filter: (*unix.SockFilter)(edge(16))}, 16},
			{"unmapped", unix.SockFprog{Len: 6, Filter: (*unix.SockFilter)(unsafe.Pointer(&area[page]))}, 16},
			{"cut short", unix.SockFprog{Len: 5, Filter: &good[0]}, 16},
			{"optlen 0", unix.SockFprog{Len: 6, Filter: &good[0]}, 0},
			{"optlen 8", unix.SockFprog{Len: 6, Filter: &good[0]}, 8},
			{"optlen 17", unix.SockFprog{Len: 6, Filter: &good[0]}, 17},
			{"optlen -1", unix.SockFprog{Len: 6, Filter: &good[0]}, 0xffffffff},
		} {
			try := func(fd int) error { return setsockopt(fd, unix.SO_ATTACH_FILTER, unsafe.Pointer(&c.prog), c.length) }
			fmt.Printf("%s: %v | %v\n", c.name, try(captive), try(other))
		}
		for name, value := range map[string]unsafe.Pointer{"null": nil, "unmapped": unsafe.Pointer(&area[page]), "half mapped": edge(2), "at the edge": edge(8)} {
			try := func(fd int) error { return setsockopt(fd, unix.SO_ATTACH_FILTER, value, 16) }
			fmt.Printf("sock_fprog %s: %v | %v\n", name, try(captive), try(other))
		}
		for _, fd := range []int{-1, 4711, 1, 1 << 31} {
			fmt.Printf("descriptor %d: %v | %v\n", fd, attach(fd, udp), []error{unix.EBADF, unix.ENOTSOCK}[b2i(fd == 1)])
		}
		runtime.KeepAlive(area)
	}
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

func TestOtherSocketsAreTheKernelsBusiness(t *testing.T) {
	s := &setting{}
	output := s.program(t, "others")
	want := "detach nothing: no such file or directory\nattach: <nil>\nfilter of 6 instructions\nlock: <nil>\nattach again: operation not permitted\n"
	if output != want || len(s.yard.made) != 0 {
		t.Errorf("%s\nwant\n%s", output, want)
	}
}

func init() {
	programs["others"] = func([]string) {
		fd := otherSocket()
		fmt.Println("detach nothing:", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0))
		fmt.Println("attach:", attach(fd, udp))
		fmt.Printf("filter of %d instructions\n", filterLen(fd))
		fmt.Println("lock:", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_LOCK_FILTER, 1))
		fmt.Println("attach again:", attach(fd, udp))
	}
}

// filterLen is how many instructions a socket's filter in the kernel has.
func filterLen(fd int) (n uint32) {
	unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_GET_FILTER, 0, uintptr(unsafe.Pointer(&n)), 0)
	return n
}

func TestACaptiveIsKnownByAnyNumberAndInAnyProcess(t *testing.T) {
	s := &setting{}
	output := s.program(t, "travel")
	if output != "dup: <nil>\nafter fork and exec: <nil>\nthread of its own: <nil>\n" {
		t.Errorf("%s", output)
	}
	if made := s.yard.made; len(made) != 1 || len(made[0].filters) != 3 {
		t.Errorf("%+v", made)
	}
}

func init() {
	programs["travel"] = func([]string) {
		fd := packetSocket(0)
		if err := unix.Dup2(fd, 77); err != nil {
			panic(err)
		}
		fmt.Println("dup:", attach(77, udp))
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = []string{programName + "=travelled"}
		cmd.ExtraFiles = []*os.File{os.NewFile(77, "captive")}
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stdout
		cmd.Run()

		// A thread whose descriptor of that number is another file than the
		// process's.
		other := otherSocket()
		done := make(chan error)
		go func() {
			runtime.LockOSThread()
			if err := unix.Unshare(unix.CLONE_FILES); err != nil {
				done <- err
				return
			}
			unix.Dup2(fd, other)
			done <- attach(other, udp)
		}()
		fmt.Println("thread of its own:", <-done)
	}
	programs["travelled"] = func([]string) { fmt.Println("after fork and exec:", attach(3, udp)) }
}

// One thread exchanges what the others attach for something else, all the time.
func TestARaceOnMemoryYieldsOneProgramOrTheOtherOrAnError(t *testing.T) {
	s := &setting{}
	s.program(t, "flip")
	got := s.yard.made[0].filters
	if len(got) == 0 {
		t.Error("no program came through")
	}
	for _, p := range got {
		if err := p.Validate(bpf.Linux); err != nil {
			t.Fatal(err)
		}
	}
}

func init() {
	programs["flip"] = func([]string) {
		fd := packetSocket(0)
		insns := sockFilter(udp)
		prog := unix.SockFprog{Len: uint16(len(insns)), Filter: &insns[0]}
		var stop atomic.Bool
		var flipper sync.WaitGroup
		flipper.Go(func() {
			for n := uint16(0); !stop.Load(); n++ {
				prog.Len = []uint16{6, 65535, 0, 4096, 6}[n%5]
				insns[n%6].Code ^= 0x80
				insns[n%6].K ^= uint32(n)
				insns[n%6].Code ^= 0x80
			}
		})
		var attackers sync.WaitGroup
		for range 4 {
			attackers.Go(func() {
				for range 250 {
					setsockopt(fd, unix.SO_ATTACH_FILTER, unsafe.Pointer(&prog), 16)
				}
			})
		}
		attackers.Wait()
		stop.Store(true)
		flipper.Wait()
		attach(fd, udp)
	}
}

// One thread exchanges the descriptor while others attach through it. A call
// that was meant for another socket and meets a captive fails in the kernel.
func TestARaceOnADescriptorNeverReachesACaptivesOwnFilter(t *testing.T) {
	s := &setting{}
	output := s.program(t, "swap")
	if output != "the captive's own filter has 1 instructions\n" {
		t.Errorf("%s", output)
	}
}

func init() {
	programs["swap"] = func([]string) {
		captive, other := packetSocket(0), otherSocket()
		const moving = 50
		unix.Dup2(other, moving)
		var stop atomic.Bool
		var swapper sync.WaitGroup
		swapper.Go(func() {
			for !stop.Load() {
				unix.Dup2(captive, moving)
				unix.Dup2(other, moving)
			}
		})
		var attackers sync.WaitGroup
		for range 4 {
			attackers.Go(func() {
				for range 100 {
					if err := attach(moving, udp); err != nil && err != unix.EPERM {
						fmt.Println(err)
					}
					err := unix.SetsockoptInt(moving, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0)
					if err != nil && err != unix.EPERM && err != unix.ENOENT {
						fmt.Println(err)
					}
				}
			})
		}
		attackers.Wait()
		stop.Store(true)
		swapper.Wait()
		fmt.Printf("the captive's own filter has %d instructions\n", filterLen(captive))
	}
}

func TestMoreSocketsThanMayBeAreRefusedUntilOthersEnd(t *testing.T) {
	s := &setting{most: 4}
	output := s.program(t, "many")
	if output != "refused: no buffer space available\n" || !strings.Contains(s.log.String(), "there are 4 captive sockets") {
		t.Errorf("%s\n%s", output, s.log.String())
	}
	if n := len(s.yard.made); n != 104 {
		t.Errorf("%d sockets made", n)
	}
}

func init() {
	programs["many"] = func([]string) {
		for range 100 {
			unix.Close(packetSocket(0))
		}
		for range 4 {
			packetSocket(0)
		}
		_, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
		fmt.Println("refused:", err)
	}
}

// Go's scheduler sends signals to threads of its own process at any time.
func TestSignalsToTheAgentSpoilNoSocket(t *testing.T) {
	stop := make(chan struct{})
	var signals sync.WaitGroup
	defer signals.Wait()
	defer close(stop)
	signals.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				signalEveryThread()
			}
		}
	})
	s := &setting{most: 16}
	if output := s.program(t, "sure"); output != "100 sockets\n" {
		t.Errorf("%s\n%s", output, s.log.String())
	}
}

func signalEveryThread() {
	threads, _ := os.ReadDir("/proc/self/task")
	for _, thread := range threads {
		if tid, err := strconv.Atoi(thread.Name()); err == nil {
			unix.Tgkill(os.Getpid(), tid, unix.SIGURG)
		}
	}
}

func init() {
	programs["sure"] = func([]string) {
		n := 0
		for range 100 {
			fd := packetSocket(0)
			if family, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN); family == unix.AF_PACKET && fd > 2 {
				n++
			}
			unix.Close(fd)
		}
		fmt.Println(n, "sockets")
	}
}

// Many threads call at once, and processes die while they wait for an answer.
func TestAFloodAndDeadCallersLeaveNothingBehind(t *testing.T) {
	before := openFiles(t)
	s := &setting{}
	if output := s.program(t, "flood"); output != "and still: <nil>\n" {
		t.Errorf("%s\n%s", output, s.log.String())
	}
	if after := openFiles(t); after != before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func init() {
	programs["flood"] = func([]string) {
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() { // a process that is killed in the midst of it
				cmd := exec.Command("/proc/self/exe")
				cmd.Env = []string{programName + "=flooder"}
				out, _ := cmd.StdoutPipe()
				if cmd.Start() == nil {
					out.Read(make([]byte, 1))
					cmd.Process.Kill()
					cmd.Wait()
				}
			})
		}
		fd := packetSocket(0)
		for range 64 {
			all.Go(func() {
				for range 20 {
					attach(fd, udp)
				}
			})
		}
		all.Wait()
		fmt.Println("and still:", attach(packetSocket(0), udp))
	}
	programs["flooder"] = func([]string) {
		for range 16 {
			go func() {
				for {
					fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
					if err == nil {
						attach(fd, udp)
						unix.Close(fd)
					}
				}
			}()
		}
		for range 200 {
			unix.Close(packetSocket(0))
		}
		fmt.Println()
		select {}
	}
}
