//go:build amd64 || arm64

package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"jailtap/internal/testutil"
	"jailtap/loader"
)

// programs are what the test binary can be as a command.
var programs = map[string]func(args []string){}

const programName = "AGENT_TEST_PROGRAM"

func TestMain(m *testing.M) {
	Child()
	if name := os.Getenv(programName); name != "" {
		os.Unsetenv(programName)
		programs[name](os.Args[1:])
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// A setting is how a test runs a command.
type setting struct {
	yard  *yard
	user  *User
	most  int
	stdin *os.File
	log   strings.Builder
}

// run runs a command, whose words are separated by spaces, and returns its exit
// status and what it has written.
func (s *setting) run(t *testing.T, argv ...string) (status int, output string, err error) {
	t.Helper()
	testutil.NeedRoot(t)
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	all := make(chan string)
	go func() {
		text, _ := io.ReadAll(read)
		all <- string(text)
	}()
	if s.yard == nil {
		s.yard = &yard{}
	}
	cfg := Config{
		Open: func() (Captives, func(), error) { return s.yard, func() {}, nil },
		User: s.user, Stdin: s.stdin, Stdout: write, Stderr: write,
		Options: Options{MaxCaptives: s.most, Log: slog.New(slog.NewTextHandler(&s.log, nil))},
	}
	status, err = Run(t.Context(), cfg, argv)
	write.Close()
	output = <-all
	s.yard.allClosed(t)
	return status, output, err
}

// program runs one of programs.
func (s *setting) program(t *testing.T, name string, args ...string) string {
	t.Helper()
	t.Setenv(programName, name)
	status, output, err := s.run(t, append([]string{"/proc/self/exe"}, args...)...)
	if status != 0 || err != nil {
		t.Fatalf("exit status %d, %v\n%s%s", status, err, output, s.log.String())
	}
	return output
}

func TestTheCommandHasNoPrivilegesAndCanGetNone(t *testing.T) {
	for _, u := range []*User{nil, {UID: 65534, GID: 65533, Groups: []uint32{7}}} {
		s := &setting{user: u}
		_, output, err := s.run(t, "cat", "/proc/self/status")
		if err != nil {
			t.Fatal(err)
		}
		want := []string{"NoNewPrivs:\t1", "Seccomp:\t2"}
		for _, set := range []string{"Inh", "Prm", "Eff", "Bnd", "Amb"} {
			want = append(want, "Cap"+set+":\t0000000000000000")
		}
		if u != nil {
			want = append(want, "Uid:\t65534\t65534\t65534\t65534", "Gid:\t65533\t65533\t65533\t65533", "Groups:\t7 ")
		}
		for _, line := range want {
			if !strings.Contains(output, line+"\n") {
				t.Errorf("%+v: no %q in\n%s", u, line, output)
			}
		}
	}
}

func TestNoDescriptorButTheStandardOnesReachesTheCommand(t *testing.T) {
	// As an operator's file that is open without O_CLOEXEC.
	fd, err := unix.Open("/dev/null", unix.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	_, output, err := (&setting{}).run(t, "sh", "-c", "ls /proc/$$/fd")
	if err != nil || output != "0\n1\n2\n" {
		t.Errorf("%q, %v", output, err)
	}
}

func TestTheCommandTypesNothingIntoTheTerminal(t *testing.T) {
	for _, request := range []int{unix.TIOCSTI, unix.TIOCLINUX} {
		script := fmt.Sprintf("import fcntl\ntry: fcntl.ioctl(0, %d, b'x')\nexcept OSError as e: print(e.errno)", request)
		if _, output, err := (&setting{}).run(t, "python3", "-c", script); err != nil || output != "1\n" { // EPERM; not ENOTTY
			t.Errorf("request %#x: %q, %v", request, output, err)
		}
	}
}

func TestTheExitStatusIsTheCommands(t *testing.T) {
	for script, want := range map[string]int{
		"exit 7": 7, "true": 0, "kill -KILL $$": 128 + 9, "kill -TERM $$": 128 + 15,
	} {
		if status, output, err := (&setting{}).run(t, "sh", "-c", script); status != want || err != nil {
			t.Errorf("%s: %d, %v, %s", script, status, err, output)
		}
	}
}

func TestACommandThatCannotBeExecutedIsAnErrorOfItsOwn(t *testing.T) {
	text := t.TempDir() + "/text"
	if err := os.WriteFile(text, []byte("neither ELF nor #!"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]error{
		"no-such-command": exec.ErrNotFound, "/no/such/command": os.ErrNotExist, text: unix.ENOEXEC, "/etc/passwd": os.ErrPermission,
	} {
		_, _, err := (&setting{}).run(t, name)
		if notExecuted, ok := errors.AsType[*ExecError](err); !ok || !errors.Is(err, want) || notExecuted.Command != name {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestWithoutCaptivesNothingIsExecuted(t *testing.T) {
	testutil.NeedRoot(t)
	mark := t.TempDir() + "/mark"
	why := errors.New("no guards to be had")
	_, err := Run(t.Context(), Config{Open: func() (Captives, func(), error) { return nil, nil, why }}, []string{"touch", mark})
	if _, statErr := os.Stat(mark); err != why || !errors.Is(statErr, os.ErrNotExist) {
		t.Errorf("%v, %v", err, statErr)
	}
}

func TestUnderAnAgentThereCanBeNoOther(t *testing.T) {
	output := (&setting{}).program(t, "nested")
	if !strings.Contains(output, "securebits") {
		t.Errorf("%s", output)
	}
}

func init() {
	programs["nested"] = func([]string) {
		_, err := Run(context.Background(), Config{Open: func() (Captives, func(), error) { return &yard{}, func() {}, nil }}, []string{"true"})
		fmt.Println(err)
	}
}

func TestRunReturnsWhenTheLastProcessHasEnded(t *testing.T) {
	mark := t.TempDir() + "/mark"
	status, _, err := (&setting{}).run(t, "sh", "-c", "(sleep 0.3; touch "+mark+") >/dev/null 2>&1 & exit 3")
	if _, statErr := os.Stat(mark); status != 3 || err != nil || statErr != nil {
		t.Errorf("%d, %v, %v", status, err, statErr)
	}
}

// agentProcess starts an agent as a process of its own, with a program as its
// command, and returns it with its output.
func agentProcess(t *testing.T, program string) (*exec.Cmd, io.ReadCloser) {
	t.Helper()
	testutil.NeedRoot(t)
	cmd := exec.Command("/proc/self/exe", program)
	cmd.Env = append(os.Environ(), programName+"=agent")
	cmd.Stderr = os.Stderr
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout = write
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	write.Close()
	t.Cleanup(func() { cmd.Process.Kill(); read.Close() })
	return cmd, read
}

func init() {
	programs["agent"] = func(args []string) {
		os.Setenv(programName, args[0])
		open := func() (Captives, func(), error) { return &yard{}, func() {}, nil }
		status, err := Run(context.Background(), Config{Open: open}, []string{"/proc/self/exe"})
		if err != nil {
			fmt.Println(err)
		}
		os.Exit(status)
	}
	programs["trap"] = func([]string) {
		cmd := exec.Command("sh", "-c", "trap 'echo got TERM; exit 5' TERM; echo ready; while :; do sleep 0.01; done")
		cmd.Stdout = os.Stdout
		unix.Exec("/bin/sh", cmd.Args, os.Environ())
	}
	programs["orphan"] = func([]string) {
		_, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
		fmt.Println("with the agent:", err)
		for range 1000 { // until the agent is gone
			var later error
			if _, later = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0); later != nil {
				fmt.Println("without:", later == unix.ENOSYS)
				break
			}
			time.Sleep(5 * time.Millisecond)
		}
		_, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
		fmt.Println("other sockets:", err)
	}
}

// expect reads a line.
func expect(t *testing.T, r io.Reader, want string) {
	t.Helper()
	got := make([]byte, len(want)+1)
	if _, err := io.ReadFull(r, got); err != nil || string(got) != want+"\n" {
		t.Fatalf("%q, %v; want %q", got, err, want)
	}
}

func TestSignalsReachTheCommand(t *testing.T) {
	cmd, output := agentProcess(t, "trap")
	expect(t, output, "ready")
	cmd.Process.Signal(unix.SIGTERM)
	expect(t, output, "got TERM")
	if cmd.Wait(); cmd.ProcessState.ExitCode() != 5 {
		t.Errorf("%v", cmd.ProcessState)
	}
}

func TestWithoutItsAgentACommandGetsNoMoreSockets(t *testing.T) {
	cmd, output := agentProcess(t, "orphan")
	expect(t, output, "with the agent: <nil>")
	cmd.Process.Kill()
	cmd.Wait()
	expect(t, output, "without: true")
	expect(t, output, "other sockets: <nil>")
}

var _ loader.Namespace = (*testutil.Namespace)(nil)
