package world_test

import (
	"bytes"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"jailtap/internal/testutil"
	"jailtap/nsjail/world"
)

func TestUsersLogInWithTheirKeyOverSSH(t *testing.T) {
	testutil.NeedRoot(t)
	for _, program := range []string{"ssh", "ssh-keygen", "/usr/sbin/sshd"} {
		if _, err := exec.LookPath(program); err != nil {
			testutil.Skip(t, "%s is not there", program)
		}
	}
	key, public := newKey(t)
	_, stranger := newKey(t)
	p := builtin(t, "sshd").With(world.Profile{Users: []world.User{
		{Name: "web", Keys: []string{public}}, {Name: "other", Keys: []string{stranger}}, {Name: "root", Keys: []string{public}},
	}})
	dir, _ := build(t, p, world.Options{})
	ns := testutil.NewNamespace(t)
	startServices(t, ns, dir)

	for user, want := range map[string]string{"web": "1000 /home/web\n", "root": "0 /root\n"} {
		if out, err := ssh(ns, key, user, "echo $(id -u) $(pwd)"); err != nil || out != want {
			t.Errorf("%s: %v: %q, want %q", user, err, out, want)
		}
	}
	if out, err := ssh(ns, key, "other", "id"); err == nil || !strings.Contains(err.Error(), "Permission denied (publickey)") {
		t.Errorf("in by the key of another: %q, %v", out, err)
	}
	info, err := os.Stat(filepath.Join(dir, "etc/ssh/ssh_host_ed25519_key"))
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("host key: %v, %v", info, err)
	}
}

// newKey makes a key, and is the file that it is in and what is public of it.
func newKey(t *testing.T) (file, public string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "key")
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", file).CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen: %v: %s", err, out)
	}
	text, err := os.ReadFile(file + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	return file, strings.TrimSpace(string(text))
}

// startServices runs /etc/rc of a world, in namespaces that end with the test. Its first
// process waits for the daemons, which else nobody would.
func startServices(t *testing.T, ns *testutil.Namespace, dir string) {
	t.Helper()
	var said bytes.Buffer
	cmd := exec.Command("unshare", "--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child", "--root", dir, "--mount-proc",
		"/bin/sh", "-c", "/etc/rc && while :; do sleep 1; done")
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := ns.Do(cmd.Start); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			t.Logf("the services: %s", said.String())
		}
	})
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		err := ns.Do(func() error {
			conn, err := net.Dial("tcp", "127.0.0.1:22")
			if err == nil {
				conn.Close()
			}
			return err
		})
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// ssh runs a command for a user. The error has what ssh said.
func ssh(ns *testutil.Namespace, key, user, command string) (string, error) {
	var out, said bytes.Buffer
	cmd := exec.Command("ssh", "-F", "none", "-i", key, "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no",
		"-o", "UserKnownHostsFile=/dev/null", user+"@127.0.0.1", command)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")} // no agent with other keys
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := ns.Do(cmd.Run); err != nil {
		return out.String(), errors.Join(err, errors.New(said.String()))
	}
	return out.String(), nil
}
