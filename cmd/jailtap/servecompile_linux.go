package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"jailtap/bpf"
	"jailtap/loader/broker"
)

// compilers have expressions compiled, those of each jail one after the other in a
// process of its own: clients that keep it busy keep no other jail waiting.
type compilers struct {
	mu      sync.Mutex
	benches map[string]*bench // by jail
}

// A bench is a jail's, as long as there was something to do lately.
type bench struct {
	turn     chan struct{} // has a place for one
	compiler *compiler     // nil: it has to be started; whose turn it is may say
	users    int           // guarded by compilers.mu
}

// A compiler is a process without any privilege, as user and group nobody, in a
// network namespace without network: libpcap looks up names that it does not know.
type compiler struct {
	process *exec.Cmd
	in      io.WriteCloser
	out     *json.Decoder
}

const (
	nobody      = 65534
	compileTime = time.Second
	compileRest = 30 * time.Second // after so long without work it ends
)

var errCompileTime = broker.Refuse(broker.CodeLimit, "the expression takes more than %v to compile (name no hosts: they are not looked up)", compileTime)

// compile implements broker.Config.Compile.
func (c *compilers) compile(ctx context.Context, jail, expression string, lt bpf.LinkType, snaplen int) (bpf.Program, error) {
	b := c.enter(jail)
	defer c.leave(jail, b)
	select {
	case b.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, broker.Refuse(broker.CodeLimit, "other expressions of jail %s are being compiled", jail)
	}
	defer func() { <-b.turn }()
	result, err := b.compile(ctx, compileTask{expression, lt, snaplen})
	if err != nil {
		return nil, err
	}
	if result.Error != "" {
		return nil, errors.New(result.Error)
	}
	return result.Program.BPF()
}

func (c *compilers) enter(jail string) *bench {
	c.mu.Lock()
	defer c.mu.Unlock()
	b := c.benches[jail]
	if b == nil {
		b = &bench{turn: make(chan struct{}, 1)}
		c.benches[jail] = b
	}
	b.users++
	return b
}

func (c *compilers) leave(jail string, b *bench) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if b.users--; b.users == 0 {
		time.AfterFunc(compileRest, func() { c.clear(jail, b) })
	}
}

// clear ends a bench that nobody uses.
func (c *compilers) clear(jail string, b *bench) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if b.users == 0 && c.benches[jail] == b {
		delete(c.benches, jail)
		b.end()
	}
}

// close ends all that nobody uses.
func (c *compilers) close() {
	for jail, b := range c.benches {
		c.clear(jail, b)
	}
}

// compile has one expression compiled by the bench's process.
func (b *bench) compile(ctx context.Context, task compileTask) (result compileResult, err error) {
	if b.compiler == nil {
		if b.compiler, err = startCompiler(); err != nil {
			return result, err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, compileTime)
	defer cancel()
	if result, err = b.compiler.run(ctx, task); err != nil {
		b.end()
	}
	return result, err
}

func (b *bench) end() {
	if b.compiler != nil {
		b.compiler.end()
		b.compiler = nil
	}
}

func startCompiler() (w *compiler, err error) {
	w = &compiler{process: exec.Command("/proc/self/exe", "serve", "compile")}
	w.process.SysProcAttr = &syscall.SysProcAttr{
		Credential: &syscall.Credential{Uid: nobody, Gid: nobody},
		Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWIPC,
	}
	w.process.Dir = "/"
	if w.in, err = w.process.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := w.process.StdoutPipe()
	if err != nil {
		return nil, err
	}
	w.out = json.NewDecoder(out)
	if err := w.process.Start(); err != nil {
		return nil, broker.Refuse(broker.CodeGuard, "the process that compiles expressions: %v", err)
	}
	return w, nil
}

// run has one expression compiled. After an error the process is of no use.
func (w *compiler) run(ctx context.Context, task compileTask) (result compileResult, err error) {
	defer context.AfterFunc(ctx, func() { w.process.Process.Kill() })()
	text, err := json.Marshal(task)
	if err != nil {
		return result, err
	}
	if _, err = w.in.Write(text); err == nil {
		err = w.out.Decode(&result)
	}
	switch {
	case ctx.Err() != nil:
		return result, errCompileTime
	case err != nil: // it has crashed, or had its time
		return result, broker.Refuse(broker.CodeGuard, "the process that compiles expressions has ended: %v", err)
	}
	return result, nil
}

// end ends the process.
func (w *compiler) end() {
	w.in.Close()
	w.process.Process.Kill() // it may be at work, and has nothing to lose
	w.process.Wait()
}

// limitCPU sees to it that a compiler which nobody waits for any more ends.
func limitCPU() error {
	const seconds = 60
	return unix.Setrlimit(unix.RLIMIT_CPU, &unix.Rlimit{Cur: seconds, Max: seconds})
}
