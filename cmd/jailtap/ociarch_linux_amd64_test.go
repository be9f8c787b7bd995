package main

import (
	"path/filepath"
	"testing"

	"jailtap/internal/testutil"
)

// Options of captive sockets are not guarded against such calls.
func TestAContainersProcessThatMakesACallOfAnotherArchitectureIsKilled(t *testing.T) {
	const sigsys = 31
	calls := map[string]struct {
		code  []byte
		under int // exit status under the profile, as the shell has it
	}{
		"native": {[]byte{0xb8, 39, 0, 0, 0, 0x0f, 0x05}, 42}, // mov eax, getpid; syscall
		"i386":   {testutil.GetpidI386, 128 + sigsys},
		"x32":    {[]byte{0xb8, 39, 0, 0, 0x40, 0x0f, 0x05}, 128 + sigsys}, // mov eax, X32|getpid; syscall
	}
	if !testutil.HasI386Calls(t) {
		delete(calls, "i386")
	}
	eachRuntime(t, func(t *testing.T, runtime string) {
		host, _ := lab(t)
		socket := deafSocket(t)
		for name, call := range calls {
			for _, confined := range []bool{false, true} {
				c := newContainer(t, runtime, host, name, name+"; exit $?")
				if err := testutil.WriteProgram(filepath.Join(c.dir, "root/bin", name), call.code); err != nil {
					t.Fatal(err)
				}
				want := 42
				if confined {
					c.profile("--listener " + socket)
					want = call.under
				}
				if r := c.start().end(0); r.status != want {
					t.Errorf("%s, confined %v: exit status %d, want %d\n%s", name, confined, r.status, want, r.stderr)
				}
				c.command("delete", "--force", c.id).Run()
			}
		}
	})
}
