package loader

import (
	"errors"
	"fmt"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A ring is memory that the kernel and this process share: blocks, each of
// which the kernel fills with records of packets and hands over, and which are
// read where they are and given back (TPACKET_V3 of
// Documentation/networking/packet_mmap.rst and linux/if_packet.h).
type ring struct {
	mem    []byte
	block  int // size of a block, bytes
	blocks int
	at     int  // offset of the block to be read next, or being read
	off    int  // offset in it of the next record
	left   int  // records in it that were not read
	held   bool // whether the block is ours

	taken uint64 // records read, ever
}

const (
	normalRing    = 2 << 20
	immediateRing = 4 << 20 // each block that is handed over early is a whole one

	normalBlock    = 256 << 10
	immediateBlock = 128 << 10
	smallestBlock  = 64 << 10 // longer packets are cut to what fits

	normalTimeout    = 50 // ms after which a block is handed over though not full
	immediateTimeout = 1
)

// Offsets in a block (struct tpacket_block_desc, with tpacket_hdr_v1 at 8) and
// in a record (struct tpacket3_hdr, and sockaddr_ll behind it).
const (
	blockStatus  = 8
	blockPackets = 12
	blockFirst   = 16

	recordAddress = (unix.SizeofTpacket3Hdr + unix.TPACKET_ALIGNMENT - 1) &^ (unix.TPACKET_ALIGNMENT - 1)
)

// headroom is what stays free before each frame, bytes: for a VLAN tag before
// Ethernet frames. Cooked frames, that need 20, have at least 16 more anyway
// (tpacket_rcv in net/packet/af_packet.c).
const headroom = 4

// newRing makes the socket's ring.
func newRing(fd, bytes int, immediate bool) (ring, error) {
	r, err := requestRing(fd, bytes, immediate)
	if err == nil {
		err = r.mapFrom(fd)
	}
	return r, err
}

// requestRing has the kernel make the ring, which is not mapped yet.
func requestRing(fd, bytes int, immediate bool) (ring, error) {
	r, req := geometry(bytes, immediate)
	err := errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VERSION, unix.TPACKET_V3),
		unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_RESERVE, headroom),
	)
	if err != nil {
		return ring{}, fmt.Errorf("the kernel lacks TPACKET_V3 rings (Linux 3.2): %w", err)
	}
	if err = unix.SetsockoptTpacketReq3(fd, unix.SOL_PACKET, unix.PACKET_RX_RING, &req); err != nil {
		return ring{}, r.explain(err)
	}
	return r, nil
}

func (r *ring) mapFrom(fd int) (err error) {
	if r.mem, err = unix.Mmap(fd, 0, r.block*r.blocks, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return r.explain(err)
	}
	return nil
}

func (r *ring) explain(err error) error {
	return fmt.Errorf("make a ring of %d KiB (a smaller one may do): %w", r.block*r.blocks>>10, err)
}

// DefaultRing is how many bytes a ring has if none are asked for.
func DefaultRing(immediate bool) int {
	if immediate {
		return immediateRing
	}
	return normalRing
}

// geometry divides bytes into blocks: at least four, unless they would be too
// small, and at least two.
func geometry(bytes int, immediate bool) (ring, unix.TpacketReq3) {
	block, timeout := normalBlock, normalTimeout
	if immediate {
		block, timeout = immediateBlock, immediateTimeout
	}
	if bytes <= 0 {
		bytes = DefaultRing(immediate)
	}
	for block > smallestBlock && bytes < 4*block {
		block /= 2
	}
	n := max(bytes/block, 2)
	const frame = 2048 // V3 checks it and does not use it
	return ring{block: block, blocks: n}, unix.TpacketReq3{
		Block_size:     uint32(block),
		Block_nr:       uint32(n),
		Frame_size:     frame,
		Frame_nr:       uint32(n * (block / frame)),
		Retire_blk_tov: uint32(timeout),
	}
}

// ready reports whether there is a record to be read. It gives back the block
// whose last record was.
func (r *ring) ready() bool {
	if r.left > 0 {
		return true
	}
	if r.held {
		r.release()
	}
	if atomic.LoadUint32(r.field(blockStatus))&unix.TP_STATUS_USER == 0 {
		return false
	}
	r.left = int(*r.field(blockPackets))
	r.off = int(*r.field(blockFirst))
	r.held = true
	return r.left > 0
}

// field is a field of the block's header.
func (r *ring) field(off int) *uint32 { return (*uint32)(unsafe.Pointer(&r.mem[r.at+off])) }

// number is that of the block.
func (r *ring) number() int { return r.at / r.block }

// next is the next record of the block, which must have one left.
func (r *ring) next() record {
	rec := record(r.mem[r.at+r.off : r.at+r.block])
	r.off += int(rec.header().Next_offset)
	r.left--
	r.taken++
	return rec
}

// release gives the block back to the kernel.
func (r *ring) release() {
	r.held = false
	atomic.StoreUint32(r.field(blockStatus), unix.TP_STATUS_KERNEL)
	r.at += r.block
	if r.at == len(r.mem) {
		r.at = 0
	}
}

func (r *ring) close() error {
	if r.mem == nil {
		return nil
	}
	mem := r.mem
	r.mem = nil
	return unix.Munmap(mem)
}

// A record is a packet in the ring: the memory from its header to the end of
// the block.
type record []byte

func (r record) header() *unix.Tpacket3Hdr { return (*unix.Tpacket3Hdr)(unsafe.Pointer(&r[0])) }

// address says where the packet came from, or went.
func (r record) address() *unix.RawSockaddrLinklayer {
	return (*unix.RawSockaddrLinklayer)(unsafe.Pointer(&r[recordAddress]))
}
