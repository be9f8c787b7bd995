package capfile

import (
	"encoding/binary"
	"math/bits"
	"time"
)

// An ngInterface is an interface of the current section.
type ngInterface struct {
	Interface
	tsresol  uint8 // if_tsresol: units of 10^-n s, or 2^-n s with the highest bit set
	tsoffset int64 // if_tsoffset, seconds
}

func (r *Reader) readFirstSection() error {
	_, body, err := r.block()
	if err != nil {
		return err
	}
	return r.readSection(body)
}

// nextNG reads blocks up to the next packet.
func (r *Reader) nextNG() (Packet, error) {
	for {
		r.start = r.offset
		kind, body, err := r.block()
		if err != nil {
			return Packet{}, err
		}
		switch kind {
		case blockSection:
			err = r.readSection(body)
		case blockInterface:
			err = r.readInterface(body)
		case blockEnhanced:
			return r.readEnhanced(body)
		case blockSimple:
			return r.readSimple(body)
		case blockPacket:
			return r.readObsolete(body)
		}
		if err != nil {
			return Packet{}, err
		}
	}
}

// block reads one block. A section's byte order is known from its third word,
// before its length can be understood.
func (r *Reader) block() (kind uint32, body []byte, err error) {
	b, err := r.take(0, 12) // the shortest block has this length
	if err != nil {
		return 0, nil, err
	}
	if binary.BigEndian.Uint32(b) == blockSection {
		switch {
		case binary.LittleEndian.Uint32(b[8:]) == byteOrderMagic:
			r.order = binary.LittleEndian
		case binary.BigEndian.Uint32(b[8:]) == byteOrderMagic:
			r.order = binary.BigEndian
		default:
			return 0, nil, r.errorf("% x is no byte-order mark of a pcapng section", b[8:12])
		}
	}
	kind = r.order.Uint32(b)
	length := r.order.Uint32(b[4:])
	if length < 12 || length > maxRecord || length%4 != 0 {
		return 0, nil, r.errorf("block of %d bytes", length)
	}
	if length > 12 {
		if b, err = r.take(12, int(length)-12); err != nil {
			return 0, nil, err
		}
	}
	if again := r.order.Uint32(b[length-4:]); again != length {
		return 0, nil, r.errorf("block of %d bytes ends with the length %d", length, again)
	}
	return kind, b[8 : length-4], nil
}

func (r *Reader) readSection(body []byte) error {
	if len(body) < 16 {
		return r.errorf("section header of %d bytes", len(body))
	}
	if major := r.order.Uint16(body[4:]); major != 1 {
		return r.errorf("pcapng version %d.%d is not known", major, r.order.Uint16(body[6:]))
	}
	r.ifaces = nil // their numbers begin anew
	return nil
}

func (r *Reader) readInterface(body []byte) error {
	if len(body) < 8 {
		return r.errorf("interface description of %d bytes", len(body))
	}
	i := ngInterface{tsresol: 6}
	i.LinkType = uint32(r.order.Uint16(body))
	i.SnapLen = r.order.Uint32(body[4:])
	err := r.options(body[8:], func(code uint16, value []byte) error {
		switch {
		case code == optInterfaceName:
			i.Name = string(value)
		case code == optInterfaceDescription:
			i.Description = string(value)
		case code == optInterfaceFilter && len(value) > 0 && value[0] == 0: // in words
			i.Filter = string(value[1:])
		case code == optInterfaceTsresol && len(value) > 0:
			i.tsresol = value[0]
			if n := i.tsresol &^ 0x80; n > 19 && i.tsresol == n || n > 63 {
				return r.errorf("time stamp resolution %#x is not supported", i.tsresol)
			}
		case code == optInterfaceTsoffset && len(value) == 8:
			i.tsoffset = int64(r.order.Uint64(value))
		}
		return nil
	})
	if !r.described {
		r.first, r.described = i.Interface, true
	}
	r.ifaces = append(r.ifaces, &i)
	return err
}

func (r *Reader) options(b []byte, each func(code uint16, value []byte) error) error {
	for len(b) >= 4 {
		code, n := r.order.Uint16(b), int(r.order.Uint16(b[2:]))
		if code == optEnd {
			return nil
		}
		if padded(n) > len(b)-4 {
			return r.errorf("option %d of %d bytes is longer than its block", code, n)
		}
		if err := each(code, b[4:4+n]); err != nil {
			return err
		}
		b = b[4+padded(n):]
	}
	return nil
}

func (r *Reader) readEnhanced(body []byte) (Packet, error) {
	if len(body) < 20 {
		return Packet{}, r.errorf("packet block of %d bytes", len(body))
	}
	return r.packet(r.order.Uint32(body), body[4:])
}

func (r *Reader) readObsolete(body []byte) (Packet, error) {
	if len(body) < 20 {
		return Packet{}, r.errorf("packet block of %d bytes", len(body))
	}
	return r.packet(uint32(r.order.Uint16(body)), body[4:])
}

// packet reads what both packet blocks have from their time stamp on.
func (r *Reader) packet(number uint32, b []byte) (Packet, error) {
	i, err := r.iface(number)
	if err != nil {
		return Packet{}, err
	}
	kept, length := r.order.Uint32(b[8:]), r.order.Uint32(b[12:])
	if uint64(kept) > uint64(len(b)-16) {
		return Packet{}, r.errorf("packet of %d bytes in a block with room for %d", kept, len(b)-16)
	}
	stamp := uint64(r.order.Uint32(b))<<32 | uint64(r.order.Uint32(b[4:]))
	return Packet{
		Time:      i.time(stamp),
		Data:      b[16 : 16+kept],
		Len:       int(max(length, kept)),
		Interface: &i.Interface,
	}, nil
}

func (r *Reader) readSimple(body []byte) (Packet, error) {
	if len(body) < 4 {
		return Packet{}, r.errorf("simple packet block of %d bytes", len(body))
	}
	i, err := r.iface(0)
	if err != nil {
		return Packet{}, err
	}
	length := r.order.Uint32(body)
	kept := length
	if i.SnapLen != 0 {
		kept = min(kept, i.SnapLen)
	}
	kept = min(kept, uint32(len(body)-4))
	return Packet{Time: time.Unix(0, 0), Data: body[4 : 4+kept], Len: int(length), Interface: &i.Interface}, nil
}

func (r *Reader) iface(number uint32) (*ngInterface, error) {
	if uint64(number) >= uint64(len(r.ifaces)) {
		return nil, r.errorf("packet of interface %d; the section has described %d", number, len(r.ifaces))
	}
	return r.ifaces[number], nil
}

// time turns a time stamp in units of tsresol into a time.
func (i *ngInterface) time(stamp uint64) time.Time {
	if n := i.tsresol &^ 0x80; n != i.tsresol {
		fraction := stamp & (1<<n - 1)
		hi, lo := bits.Mul64(fraction, 1e9)
		return time.Unix(int64(stamp>>n)+i.tsoffset, int64(hi<<(64-n)|lo>>n))
	}
	unit := uint64(1) // per second
	for range i.tsresol {
		unit *= 10
	}
	hi, lo := bits.Mul64(stamp%unit, 1e9)
	nanos, _ := bits.Div64(hi, lo, unit)
	return time.Unix(int64(stamp/unit)+i.tsoffset, int64(nanos))
}

// padded rounds up to whole 32-bit words.
func padded(n int) int { return (n + 3) &^ 3 }
