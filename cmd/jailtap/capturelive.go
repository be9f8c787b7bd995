package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"

	"jailtap/bpf"
	"jailtap/internal/capfile"
	"jailtap/loader"
	"jailtap/nsjail"
)

// live captures from an interface. The tap comes before the output, so that
// there is no file if there is no capture.
func (s *session) live(ctx context.Context) error {
	l := &liveCapture{session: s, words: "no scope", changes: make(chan string)}
	if s.flags.brokered {
		return l.brokered(ctx)
	}
	config, err := l.config()
	if err != nil {
		return err
	}
	if s.flags.inNetns != "" {
		jail, err := nsjail.OpenNamespace(s.flags.inNetns)
		if err != nil {
			return err
		}
		defer jail.Close()
		config.Namespace, l.namespace = jail, jail
	}
	if l.tap, err = loader.Open(config); err != nil {
		return adviceOn(err)
	}
	defer l.tap.Close()
	return l.run(ctx)
}

type liveCapture struct {
	*session
	tap       *loader.Tap
	namespace loader.Namespace // nil: the caller's
	scope     bpf.Scope        // at the start
	words     string           // the scope in words
	changes   chan string      // new scopes, in words
	names     map[uint32]string
	iface     *capfile.Interface
}

func (l *liveCapture) config() (loader.Config, error) {
	f := l.flags
	c := loader.Config{
		Interface: f.iface, NoScope: f.noScope, Filter: l.user.compile, Engine: loader.Engine(f.engine), Direction: loader.Direction(f.direction),
		Snaplen: l.user.snaplen, RingBytes: f.ringKiB << 10, Immediate: f.immediate, Hub: loader.Hub(f.hub), Promiscuous: !f.noPromisc,
	}
	if f.noScope {
		if os.Geteuid() != 0 {
			return c, errors.New("--no-scope shows everybody's packets and needs root")
		}
		l.say("WARNING: --no-scope: this capture is NOT limited to any jail and shows everything on %s", f.iface)
		return c, nil
	}
	var err error
	l.scope, err = l.source.now()
	c.Scope, c.ScopeChanges = l.scope, l.source.jail != nil
	if err == nil {
		l.words = "scope: " + l.source.describe(l.scope)
	}
	return c, err
}

// adviceOn says what else can be done about an error.
func adviceOn(err error) error {
	var many *bpf.TooManyAddressesError
	if errors.As(err, &many) && many.Dialect == bpf.Linux {
		return fmt.Errorf("%w: use --engine ebpf", err)
	}
	return err
}

// often is how often the number of packets is shown.
const often = 200 * time.Millisecond

func (l *liveCapture) run(ctx context.Context) error {
	l.iface = &capfile.Interface{LinkType: l.tap.LinkType().FileNumber(), Name: l.tap.Interface()}
	if err := l.openOutput(time.Now(), l.iface, l.words, l.interfaceName, l.counts); err != nil {
		return err
	}
	fmt.Fprintf(l.stderr, "listening on %s, link-type %s, snapshot length %d bytes\n%s; engine %s (%s)\n",
		l.tap.Interface(), linkTypeName(l.iface.LinkType), l.user.snaplen, l.words, l.tap.Engine(), l.tap.Reason())

	if l.duration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, l.duration)
		defer cancel()
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	following, talking := l.follow(ctx, cancel), l.talk(ctx)
	err := l.tap.ReadBatches(ctx, l.batch)
	cancel(nil)
	<-following
	<-talking
	if err == nil {
		err = followError(ctx)
	}
	return l.finish(err, l.counts())
}

// errFollow is wrapped by errors of following a jail's addresses.
var errFollow = errors.New("cannot follow the scope")

func followError(ctx context.Context) error {
	if err := context.Cause(ctx); errors.Is(err, errFollow) {
		return err
	}
	return nil
}

// follow keeps the scope at the addresses that the jail has. If that fails
// the capture ends, since it would show what is not the jail's any more.
func (l *liveCapture) follow(ctx context.Context, cancel context.CancelCauseFunc) (done <-chan struct{}) {
	finished := make(chan struct{})
	if l.source == nil || l.source.jail == nil {
		close(finished)
		return finished
	}
	fail := func(err error) {
		if err != nil {
			cancel(fmt.Errorf("%w of %v: %w", errFollow, l.source, adviceOn(err)))
		}
	}
	last := l.scope.Addrs
	go func() {
		defer close(finished)
		fail(l.source.jail.Watch(ctx, func(addrs []netip.Prefix) {
			scope := l.source.with(addrs)
			if slices.Equal(scope.Addrs, last) {
				return
			}
			last = scope.Addrs
			if err := l.tap.SetScope(scope); err != nil {
				fail(err)
				return
			}
			select {
			case l.changes <- l.source.describe(scope):
			case <-ctx.Done():
			}
		}))
	}()
	return finished
}

// talk says what there is to say while packets are captured: counts when they are
// asked for, new scopes and, on a terminal, how many packets have been written.
func (l *liveCapture) talk(ctx context.Context) (done <-chan struct{}) {
	finished := make(chan struct{})
	asked, stop := askedForCounts()
	typed, stopKeys := ctrlTs(l.stdin)
	tick := make(<-chan time.Time)
	if l.flags.writeFile != "" && isTerminal(l.stderr) {
		tick = time.Tick(often)
	}
	go func() {
		defer close(finished)
		defer stop()
		defer stopKeys()
		for {
			select {
			case <-asked:
				l.printCounts(l.counts())
			case <-typed:
				l.endLine()
				l.say("%s", l.counts().line())
			case scope := <-l.changes:
				l.endLine()
				l.say("scope is now %s", scope)
			case <-tick:
				l.showCount()
			case <-ctx.Done():
				return
			}
		}
	}()
	return finished
}

func (l *liveCapture) batch(packets loader.Packets) error {
	if packets == nil {
		return l.out.flush()
	}
	return l.put(packets, l.iface)
}

func (l *liveCapture) counts() counts {
	c := counts{Captured: l.captured.Load(), Engine: string(l.tap.Engine())}
	stats, err := l.tap.Stats()
	if err != nil {
		l.say("%v", err)
	}
	c.Received, c.Dropped = stats.Received, stats.Dropped
	c.Seen, c.InScope, c.Matched = stats.Seen, stats.InScope, stats.Matched
	return c
}

// interfaceName names an interface for packets of the interface any.
func (l *liveCapture) interfaceName(index uint32) string {
	if name, ok := l.names[index]; ok {
		return name
	}
	find := func() error {
		i, err := net.InterfaceByIndex(int(index))
		if err == nil {
			l.names[index] = i.Name
		}
		return err
	}
	if l.names == nil {
		l.names = make(map[uint32]string)
	}
	l.names[index] = "" // asked once: one that is gone does not come back
	if l.namespace != nil {
		_ = l.namespace.Do(find)
	} else {
		_ = find()
	}
	return l.names[index]
}
