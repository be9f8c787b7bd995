//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// A handover is the least that a daemon with a pool must do: it takes a connection, reads
// which kind of capture is wanted, binds a socket whose ring is ready, and sends it. What
// jailtap serve takes beyond that is for who asks, scope, filter and log.

// handoverVariable is set in the process that hands over, to its setupConfig.
const handoverVariable = "JAILTAP_BENCH_HANDOVER"

// startHandover starts that process, in this namespace.
func (cfg *setupConfig) startHandover() (end func() error, err error) {
	dir, err := os.MkdirTemp("", "jailtap-bench-")
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}()
	cfg.Handover = filepath.Join(dir, "s")
	text, err := json.Marshal(cfg)
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), handoverVariable+"="+string(text))
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	kill := func() error {
		err := cmd.Process.Kill()
		cmd.Wait()
		return err
	}
	for range 100 { // 5 s
		if _, err = os.Stat(cfg.Handover); err == nil {
			return func() error { return errors.Join(kill(), os.RemoveAll(dir)) }, nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return nil, errors.Join(err, kill())
}

// runHandover hands over until it is killed.
func runHandover(config string) error {
	var cfg setupConfig
	if err := json.Unmarshal([]byte(config), &cfg); err != nil {
		return err
	}
	filter, ifindex, err := cfg.bareParts()
	if err != nil {
		return err
	}
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: cfg.Handover, Net: "unixpacket"})
	if err != nil {
		return err
	}
	ready := make([]int, len(setupKinds)) // descriptors; 0: none
	for {
		for i, k := range setupKinds {
			if ready[i] == 0 {
				if ready[i], err = bareRing(k, filter); err != nil {
					return err
				}
			}
		}
		conn, err := l.AcceptUnix()
		if err != nil {
			return err
		}
		if err := handOver(conn, ready, ifindex); err != nil {
			return err
		}
		time.Sleep(5 * time.Millisecond) // as jailtap serve does
	}
}

func handOver(conn *net.UnixConn, ready []int, ifindex int) error {
	defer conn.Close()
	kind := make([]byte, 1)
	if _, err := conn.Read(kind); err != nil {
		return err
	}
	fd := ready[kind[0]]
	ready[kind[0]] = 0
	defer unix.Close(fd)
	if err := bindToIndex(fd, ifindex, unix.ETH_P_ALL); err != nil {
		return err
	}
	_, _, err := conn.WriteMsgUnix(kind, unix.UnixRights(fd), nil)
	return err
}

// handedOver asks it.
func (cfg setupConfig) handedOver(kind int) (_ capture, err error) {
	conn, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: cfg.Handover, Net: "unixpacket"})
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if _, err := conn.Write([]byte{byte(kind)}); err != nil {
		return nil, err
	}
	rights := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := conn.ReadMsgUnix(make([]byte, 1), rights)
	if err != nil {
		return nil, err
	}
	messages, err := unix.ParseSocketControlMessage(rights[:n])
	if err != nil || len(messages) != 1 {
		return nil, errors.Join(err, errors.New("no socket was handed over"))
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		return nil, err
	}
	b := &bare{fd: fds[0]}
	if err := b.mapRing(setupKinds[kind]); err != nil {
		return nil, errors.Join(err, b.close())
	}
	return b, nil
}
