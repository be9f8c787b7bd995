package broker

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// A Client is a connection to a Server. It is good for one capture, and for as
// long as one wants to change its filter or know its counts: the socket is not
// shut when the connection ends. Its methods may be called from several goroutines.
//
// Its calls are the kernel's own, which wait: who asks for one thing and waits for it has
// it sooner than through the runtime's poller.
type Client struct {
	fd     int
	closed atomic.Bool
	mu     sync.Mutex // held while fd is used, but for what ends that
}

// answerTime is how long a Client waits for an answer.
const answerTime = 30 * time.Second

// Dial connects to the Server at a path; "" is DefaultSocket.
func Dial(path string) (*Client, error) {
	if path == "" {
		path = DefaultSocket
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("broker: %w", err)
	}
	if err := connect(fd, path); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("broker: %s: connect: %w", path, err)
	}
	return &Client{fd: fd}, nil
}

func connect(fd int, path string) error {
	limit := unix.NsecToTimeval(answerTime.Nanoseconds())
	err := errors.Join(
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit), // of connect too: socket(7)
	)
	if err == nil {
		_, err = untilDone(func() (int, error) { return 0, unix.Connect(fd, &unix.SockaddrUnix{Name: path}) })
	}
	return err
}

// Capture asks for a captive socket, which the caller closes. It has packets at
// once. The error is a *Refusal if the Server says no.
func (c *Client) Capture(r Request) (*Grant, *os.File, error) {
	a, socket, err := c.ask(opCapture, r)
	if err == nil && (a.Grant == nil || socket == nil) {
		err = errors.New("broker: it gave no socket")
	}
	if err != nil {
		if socket != nil {
			socket.Close()
		}
		return nil, nil, err
	}
	return a.Grant, socket, nil
}

// SetFilter exchanges the filter of the captive socket. The one before stays if
// there is an error.
func (c *Client) SetFilter(f Filter) (Rest, error) {
	a, _, err := c.ask(opFilter, Request{Filter: f})
	if err != nil || a.Rest == nil {
		return Rest{}, err
	}
	return *a.Rest, nil
}

// ClearFilter makes the filter "everything in scope".
func (c *Client) ClearFilter() error {
	_, _, err := c.ask(opClear, Request{})
	return err
}

// Stats are the counts of the captive socket so far.
func (c *Client) Stats() (Stats, error) {
	a, _, err := c.ask(opStats, Request{})
	if err != nil || a.Stats == nil {
		return Stats{}, err
	}
	return *a.Stats, nil
}

// Close ends the connection, and with it the wait for an answer.
func (c *Client) Close() error {
	if c.closed.Swap(true) {
		return errClosed
	}
	unix.Shutdown(c.fd, unix.SHUT_RDWR)
	c.mu.Lock()
	defer c.mu.Unlock()
	return unix.Close(c.fd)
}

var errClosed = fmt.Errorf("broker: %w", net.ErrClosed)

func (c *Client) ask(op string, r Request) (*answer, *os.File, error) {
	text, err := json.Marshal(message{Version: Version, Op: op, Request: r})
	if err != nil {
		return nil, nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed.Load() {
		return nil, nil, errClosed
	}
	if err := c.send(text); err != nil {
		return nil, nil, fmt.Errorf("broker: %w", err)
	}
	a, socket, err := c.receive()
	switch {
	case err == nil && a.Error != nil:
		err = a.Error
	case err != nil && c.closed.Load():
		err = errClosed
	}
	return a, socket, err
}

func (c *Client) send(text []byte) error {
	_, err := untilDone(func() (int, error) { return 0, unix.Sendto(c.fd, text, unix.MSG_NOSIGNAL, nil) })
	return err
}

func (c *Client) receive() (*answer, *os.File, error) {
	// Memory for the longest answer there may be would take longer to get than the answer.
	size, err := untilDone(func() (int, error) {
		n, _, err := unix.Recvfrom(c.fd, nil, unix.MSG_PEEK|unix.MSG_TRUNC)
		return n, err
	})
	if err == nil && size == 0 {
		err = errors.New("it closed the connection")
	}
	if err != nil {
		return nil, nil, fmt.Errorf("broker: %w", err)
	}
	buf := make([]byte, min(size, maxMessage))
	rights := make([]byte, unix.CmsgSpace(4))
	n, rightsLen, _, _, err := unix.Recvmsg(c.fd, buf, rights, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return nil, nil, fmt.Errorf("broker: %w", err)
	}
	socket, err := received(rights[:rightsLen])
	if err != nil {
		return nil, nil, err
	}
	a := &answer{}
	if err := json.Unmarshal(buf[:n], a); err != nil {
		return nil, socket, fmt.Errorf("broker: its answer makes no sense: %w", err)
	}
	return a, socket, nil
}

// untilDone does it again when a signal has come in between, of which the runtime sends
// itself some, but not for ever: each time the kernel waits anew.
func untilDone(do func() (int, error)) (n int, err error) {
	began := time.Now()
	for {
		n, err = do()
		interrupted := errors.Is(err, unix.EINTR)
		switch {
		case errors.Is(err, unix.EAGAIN), interrupted && time.Since(began) > answerTime:
			return n, os.ErrDeadlineExceeded
		case !interrupted:
			return n, err
		}
	}
}

// received is the descriptor that came, if one did.
func received(rights []byte) (*os.File, error) {
	messages, err := unix.ParseSocketControlMessage(rights)
	if err != nil || len(messages) == 0 {
		return nil, err
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) == 0 {
		return nil, err
	}
	return os.NewFile(uintptr(fds[0]), "captive socket"), nil
}
