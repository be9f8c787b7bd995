//go:build amd64 || arm64

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"syscall"

	"github.com/spf13/cobra"

	"jailtap/bpf"
	"jailtap/loader/agent"
	"jailtap/nsjail/jail"
)

func init() { jail.System.Agent = jailAgents{} }

// jailAgents give jails with allow.bpf captive sockets. For each command of such a
// jail there is a process on the host, jailtap jail agent, that answers for the
// command and what that starts, and ends with the last of them. So there is nothing
// to look after, and nothing that one jail's commands have in common with another's.
type jailAgents struct{}

// Calls implements jail.Agent.
func (jailAgents) Calls() []jail.Call {
	var list []jail.Call
	for _, r := range agent.Rules() {
		c := jail.Call{Number: r.Number}
		for _, arg := range r.Args {
			c.Args = append(c.Args, jail.Arg{Index: arg.Index, Value: arg.Value})
		}
		list = append(list, c)
	}
	return list
}

// The descriptors of an agent: the listener, and where it says that it serves, or
// why it does not.
const (
	agentListener = 3
	agentAnswer   = 4
	agentServes   = "serves"
)

// Serve implements jail.Agent.
func (jailAgents) Serve(j *jail.Jail, listener *os.File) error {
	name := j.Spec().Name
	log, err := os.OpenFile(jail.System.AgentLog(name), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	answer, theirs, err := os.Pipe()
	if err != nil {
		return err
	}
	defer answer.Close()
	cmd := exec.Command("/proc/self/exe", "jail", "agent", name)
	cmd.Dir, cmd.Stderr = "/", log
	cmd.ExtraFiles = []*os.File{listener, theirs}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	theirs.Close()
	if err != nil {
		return fmt.Errorf("start the agent: %w", err)
	}
	said, err := io.ReadAll(answer)
	if err == nil && string(said) != agentServes {
		err = fmt.Errorf("the agent says: %s", said)
	}
	if err != nil {
		cmd.Process.Kill()
		cmd.Wait()
		return err
	}
	go cmd.Wait() // it may end before this process does
	return nil
}

func (a *app) jailAgentCommand() *cobra.Command {
	return &cobra.Command{
		Use: "agent NAME", Short: "Make the packet sockets of a jail's command", Hidden: true, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if what, _ := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", agentListener)); what != "anon_inode:seccomp notify" {
				return errors.New("jailtap starts this by itself, for jails with allow.bpf")
			}
			listener, answer := os.NewFile(agentListener, "seccomp listener"), os.NewFile(agentAnswer, "answer")
			err := a.serveJail(cmd.Context(), args[0], listener, answer)
			if err != nil {
				fmt.Fprint(answer, err) // nobody reads it if the agent had begun to serve
			}
			return err
		},
	}
}

// serveJail answers for a command of a jail until that and what it has started have
// ended.
func (a *app) serveJail(ctx context.Context, name string, listener, answer *os.File) error {
	j, err := jail.System.Find(name)
	if err != nil {
		return err
	}
	whose, err := openJail(name)
	if err != nil {
		return err
	}
	source := &scopeSource{jail: whose, policy: bpf.Full}
	defer source.Close()
	scope, err := source.now()
	if err != nil {
		return err
	}
	ns, err := openNetwork(j)
	if err != nil {
		return err
	}
	defer ns.Close()
	ctx, cancel := context.WithCancel(ctx)
	fleet, closeAll, err := a.launchFleet(ctx, ns, source, scope)
	if err != nil {
		cancel()
		return err
	}
	defer func() { cancel(); closeAll() }()
	if _, err := io.WriteString(answer, agentServes); err != nil {
		return err
	}
	answer.Close()
	return agent.Serve(ctx, listener, fleet, agent.Options{Log: slog.New(slog.NewTextHandler(a.stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))})
}
