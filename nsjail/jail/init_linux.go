//go:build amd64 || arm64

package jail

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// initFile is the program of init.c in memory, sealed, so that nobody changes it
// who gets hold of it.
var initFile = sync.OnceValues(func() (*os.File, error) {
	fd, err := unix.MemfdCreate("jailtap-init", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.3 all are executable
		fd, err = unix.MemfdCreate("jailtap-init", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return nil, fmt.Errorf("put the jail's first program in memory: %w (is vm.memfd_noexec 2?)", err)
	}
	f := os.NewFile(uintptr(fd), "jailtap-init")
	if _, err := f.Write(initProgram); err != nil {
		return nil, fmt.Errorf("put the jail's first program in memory: %w", err)
	}
	const seals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals); err != nil {
		return nil, fmt.Errorf("seal the jail's first program: %w", err)
	}
	return f, nil
})

// An agent is a process of the program of init.c, and our end of its control
// socket.
type agent struct {
	pid     int // of a child of this process, which has not been waited for
	control *os.File
}

// startAgent starts the program and tells it what to do. files are its descriptors
// from 0 on, if it has any; the control socket is 3.
func startAgent(spec *initSpec, argv, env []string, files []*os.File, sys *syscall.SysProcAttr) (*agent, error) {
	program, err := initFile()
	if err != nil {
		return nil, err
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "control"), os.NewFile(uintptr(pair[1]), "control")
	defer theirs.Close()
	const none = ^uintptr(0)
	fds := []uintptr{none, none, none, theirs.Fd()}
	for i, f := range files {
		if i < 3 {
			fds[i] = f.Fd()
		} else {
			fds = append(fds, f.Fd())
		}
	}
	// os.StartProcess would try first whether pidfds work, with a child.
	pid, err := syscall.ForkExec(fmt.Sprintf("/proc/self/fd/%d", program.Fd()), argv, &syscall.ProcAttr{Env: env, Files: fds, Sys: sys})
	runtime.KeepAlive(files)
	if err != nil {
		ours.Close()
		return nil, startError(err)
	}
	a := &agent{pid, ours}
	if _, err := ours.Write(spec.bytes()); err != nil {
		a.abandon()
		return nil, fmt.Errorf("the jail's process is gone: %w", err)
	}
	return a, nil
}

func startError(err error) error {
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("start the jail's process: %w: it needs CAP_SYS_ADMIN (run with sudo)", unix.EPERM)
	}
	return fmt.Errorf("start the jail's process: %w", err)
}

// read waits for a report. The end of the socket is io.EOF.
func (a *agent) read() (r report, err error) {
	_, err = io.ReadFull(a.control, unsafe.Slice((*byte)(unsafe.Pointer(&r)), unsafe.Sizeof(r)))
	return r, err
}

// expect waits for a report about a step.
func (a *agent) expect(want step) (value int32, err error) {
	r, err := a.read()
	switch {
	case err != nil:
		return 0, errors.New("the jail's process has ended before its time")
	case r.err() != nil:
		return 0, r.err()
	case r.Step != want:
		return 0, fmt.Errorf("the jail's process reports %d where %d was wanted", r.Step, want)
	}
	return r.Value, nil
}

// release lets the program go on.
func (a *agent) release() error {
	_, err := a.control.Write([]byte{0})
	return err
}

// abandon ends a process that did not become what it should.
func (a *agent) abandon() {
	a.control.Close()
	unix.Kill(a.pid, unix.SIGKILL)
	unix.Wait4(a.pid, nil, 0, nil)
}
