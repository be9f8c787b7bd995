package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"time"

	"jailtap/internal/capfile"
	"jailtap/loader"
)

// A rotation says when to go on in another file, and what it is called.
type rotation struct {
	name  string        // strftime(3) conversions if every is set
	size  int64         // bytes; 0: no limit
	every time.Duration // 0: no limit
	files int           // 0: no limit
}

// errEnoughFiles ends a capture that has written all the files it should.
var errEnoughFiles = errors.New("maximum file limit reached")

// fileName is tcpdump's name for file number n, counted from 0 since the last
// change by time: NAME, NAME1, NAME2..., or with as many digits as the last
// one needs if it is known which that is.
func (r *rotation) fileName(t time.Time, n int) (string, error) {
	name := r.name
	if r.every > 0 {
		var err error
		if name, err = strftime(name, t); err != nil {
			return "", err
		}
	}
	digits := 0
	if r.size > 0 && r.files > 0 {
		for last := r.files - 1; last > 0; last /= 10 {
			digits++
		}
	}
	if n == 0 && digits == 0 {
		return name, nil
	}
	return fmt.Sprintf("%s%0*d", name, digits, n), nil
}

// A fileSink writes capture files, one after another.
type fileSink struct {
	rotation
	format capfile.Format
	stdout io.Writer                                  // instead of files, if not nil
	each   bool                                       // flush each packet
	about  func(*capfile.Interface) capfile.Interface // what to write of an interface
	counts func() counts                              // so far
	first  *capfile.Interface                         // described at the start of each file

	file   *outFile // nil: stdout
	w      *capfile.Writer
	ids    map[*capfile.Interface]int
	packet loader.Packet // that is being written
	opened time.Time     // the current file, or the first of its turn by time
	bySize int           // files since then
	byTime int           // turns
}

// open begins the next file.
func (s *fileSink) open() error {
	out, name := s.stdout, "standard output"
	s.file = nil
	if out == nil {
		var err error
		if name, err = s.fileName(s.opened, s.bySize); err != nil {
			return err
		}
		if s.file, err = create(name); err != nil {
			return err
		}
		out = s.file.File
	}
	section := capfile.Section{OS: system(), Application: application()}
	w, err := capfile.NewWriter(out, name, s.format, section, s.about(s.first))
	if err != nil {
		s.discard()
		return err
	}
	s.w, s.ids = w, map[*capfile.Interface]int{s.first: 0}
	return nil
}

// put writes packets all at once, unless something is to be done for each.
func (s *fileSink) put(packets loader.Packets, iface *capfile.Interface) (n int, err error) {
	if !s.each && s.size == 0 && s.every == 0 {
		id, err := s.id(iface)
		if err != nil {
			return 0, err
		}
		return s.w.WriteAll(id, packets)
	}
	for ; packets.Next(&s.packet); n++ {
		if err = s.turn(s.packet.Time); err != nil {
			return n, err
		}
		if err = s.write(&s.packet, iface); err != nil {
			return n, err
		}
	}
	return n, nil
}

func (s *fileSink) write(p *loader.Packet, iface *capfile.Interface) error {
	id, err := s.id(iface)
	if err != nil {
		return err
	}
	if err := s.w.Write(id, *p); err != nil || !s.each {
		return err
	}
	return s.w.Flush()
}

// id is the interface's number in the file.
func (s *fileSink) id(iface *capfile.Interface) (int, error) {
	if id, ok := s.ids[iface]; ok {
		return id, nil
	}
	return s.describe(iface)
}

// describe adds an interface to the file. In pcap, which has one, others are
// the same as long as their link type is.
func (s *fileSink) describe(iface *capfile.Interface) (id int, err error) {
	if s.format == capfile.PcapNG || iface.LinkType != s.first.LinkType {
		id, err = s.w.AddInterface(s.about(iface))
	}
	s.ids[iface] = id
	return id, err
}

// turn goes on to the next file if it is time to, at the time of a packet.
func (s *fileSink) turn(now time.Time) error {
	switch {
	case s.every > 0 && now.Sub(s.opened) >= s.every:
		s.byTime++
		if s.size == 0 && s.files > 0 && s.byTime >= s.files {
			return errEnoughFiles
		}
		s.opened, s.bySize = now, 0
	case s.size > 0 && s.w.Size() > s.size:
		s.bySize++
		if s.files > 0 && s.bySize >= s.files {
			s.bySize = 0
		}
	default:
		return nil
	}
	if err := s.close(s.counts()); err != nil {
		return err
	}
	return s.open()
}

func (s *fileSink) flush() error { return s.w.Flush() }

// close ends the current file, if there is one.
func (s *fileSink) close(c counts) error {
	if s.w == nil {
		return nil
	}
	err := s.w.WriteStats(0, capfile.Stats{Start: s.opened, End: time.Now(), Received: c.Received, Dropped: c.Dropped})
	if err == nil {
		err = s.w.Flush()
	}
	if s.file != nil {
		err = cmp.Or(err, s.file.Close())
	}
	s.w = nil
	return err
}

// discard takes back a file in which nothing is yet.
func (s *fileSink) discard() {
	if s.file != nil {
		s.file.discard()
	}
}
