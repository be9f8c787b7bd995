//go:build amd64 || arm64

package escape

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// racing are attempts to be quicker than whoever looks.
var racing = []attempt{
	{name: "memory under the agent's eyes", how: "one thread rewrites sock_fprog and its instructions while others attach", in: both, do: rewriteMemory},
	{name: "a captive for a plain socket", how: "dup2(2) over the descriptor of a plain socket in the midst of attach, detach and unlock", in: both, do: swapDescriptor},
	{name: "the first frames", how: "read at once, of 100 sockets that are opened for all protocols", in: both, control: true, do: firstFrames},
	{name: "close in the midst of a call", how: "one thread closes what another attaches a filter to", in: both, do: closeMidst},
	{name: "die in the midst of a call", how: "processes that are killed while the agent answers", in: []setting{run}, do: dieMidst},
	{name: "options in the midst of options", how: "PACKET_ADD_MEMBERSHIP turned into others in memory", in: both, do: rewriteOption, outside: promiscuous},
	{name: "send while options change", how: "one thread sets PACKET_QDISC_BYPASS and PACKET_TX_RING, others send", in: both, control: true, do: sendWhileSetting},
	{name: "a flood of notifications", how: "64 threads attach and open; another command runs beside", in: []setting{run}, do: flood},
}

// against runs something without pause in a thread until the other is done.
func against(disturb func(n int), do func()) {
	var stop atomic.Bool
	done := make(chan struct{})
	go func() {
		defer close(done)
		for n := 0; !stop.Load(); n++ {
			disturb(n)
		}
	}()
	do()
	stop.Store(true)
	<-done
}

// inThreads runs something in some threads, and waits for them.
func inThreads(n int, do func(t *tally)) error {
	var all sync.WaitGroup
	var mu sync.Mutex
	var sum tally
	for range n {
		all.Go(func() {
			var t tally
			do(&t)
			mu.Lock()
			defer mu.Unlock()
			for _, name := range t.names {
				sum.count(name, t.counts[name])
			}
		})
	}
	all.Wait()
	return sum.met()
}

func rewriteMemory(a *attacker) error {
	fd := a.bound()
	insns := chain(6)
	prog := &unix.SockFprog{Len: 6, Filter: &insns[0]}
	var met error
	against(func(n int) {
		prog.Len = []uint16{6, 65535, 0, 4096, 6}[n%5]
		insns[n%6].Code ^= 0x80
		insns[n%6].K = uint32(n)
		insns[n%6].Code ^= 0x80
	}, func() {
		met = inThreads(4, func(t *tally) {
			for range 60 {
				t.add(setsockopt(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, unsafe.Pointer(prog), unsafe.Sizeof(*prog)))
			}
		})
	})
	attach(fd, everything)
	return then(met, a.look(fd))
}

func swapDescriptor(a *attacker) error {
	fd := a.bound()
	plain, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	must("UDP", err)
	const moving = 60
	must("dup2", unix.Dup2(plain, moving))
	var met error
	against(func(n int) { unix.Dup2([]int{fd, plain}[n%2], moving) }, func() {
		met = inThreads(4, func(t *tally) {
			for range 60 {
				t.add(attach(moving, everything))
				t.add(unix.SetsockoptInt(moving, unix.SOL_SOCKET, unix.SO_LOCK_FILTER, 0))
				t.add(unix.SetsockoptInt(moving, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0))
			}
		})
	})
	attach(fd, everything)
	return then(met, a.look(fd))
}

func firstFrames(a *attacker) error {
	own, foreign := 0, 0
	for range 100 {
		fd := -1
		if a.setting == held {
			fd = a.bound()
		} else {
			var err error
			fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK, int(networkOrder(unix.ETH_P_ALL)))
			must("a socket", err)
		}
		n, m := a.glance2(fd)
		own, foreign = own+n, foreign+m
		unix.Close(fd)
	}
	if foreign > 0 {
		return nil
	}
	return errors.New("no foreign frames first")
}

// glance2 waits for a frame, and takes it.
func (a *attacker) glance2(fd int) (own, foreign int) {
	unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 30)
	unix.SetNonblock(fd, true)
	for end := time.Now().Add(time.Millisecond); time.Now().Before(end); {
		n, m := a.watch(fd, time.Microsecond)
		own, foreign = own+n, foreign+m
	}
	return own, foreign
}

func closeMidst(a *attacker) error {
	fd := a.bound()
	const moving = 61
	var met error
	against(func(n int) { unix.Dup2(fd, moving); unix.Close(moving) }, func() {
		met = inThreads(4, func(t *tally) {
			for range 60 {
				t.add(attach(moving, everything))
			}
		})
	})
	return then(met, a.look(fd))
}

func dieMidst(a *attacker) error {
	if a.stage != "" {
		for range 8 {
			go func() {
				for {
					if fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0); err == nil {
						attach(fd, everything)
						unix.Close(fd)
					}
				}
			}()
		}
		time.Sleep(time.Hour)
	}
	fd := a.bound()
	for range 12 {
		cmd := a.next("die", fd)
		must("start", cmd.Start())
		time.Sleep(20 * time.Millisecond)
		cmd.Process.Kill()
		cmd.Wait()
		fd = a.bound()
	}
	return a.abuse(a.captive())
}

func rewriteOption(a *attacker) error {
	fd := a.bound()
	mreq := &unix.PacketMreq{Ifindex: int32(index("eth0")), Type: unix.PACKET_MR_PROMISC}
	var met error
	against(func(n int) { mreq.Type, mreq.Ifindex = uint16(n%5), int32(n%8) }, func() {
		met = inThreads(2, func(t *tally) {
			for range 500 {
				t.add(unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, mreq))
			}
		})
	})
	return then(met, a.look(fd))
}

func sendWhileSetting(a *attacker) error {
	fd := a.bound()
	var met error
	against(func(int) {
		unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1)
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, 0)
	}, func() {
		met = inThreads(4, func(t *tally) {
			for range 300 {
				t.add(sendBound(fd, 0, a.frame()))
			}
		})
	})
	return met
}

func flood(a *attacker) error {
	fd := a.bound()
	other := make(chan string, 1)
	go func() { other <- a.ask("run") }()
	met := inThreads(64, func(t *tally) {
		for range 10 {
			t.add(attach(fd, everything))
			mine, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
			if t.add(err); err == nil {
				unix.Close(mine)
			}
		}
	})
	if answer := <-other; answer != "ok" {
		broken("the other command: %s", answer)
	}
	return then(met, a.abuse(fd))
}
