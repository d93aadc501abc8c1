package jetstream

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"time"

	"github.com/minio/highwayhash"
)

// A record on disk (nats-server, filestore.go, writeMsgRecordLocked):
//
//	length(4) sequence(8) time(8) subject length(2) subject [header length(4) header] message checksum(8)
//
// in little endian; the highest bit of length says that there is a header, the two
// highest of sequence mark records that only say that a message is gone.
const (
	recordHead = 22
	recordSum  = 8
	headerBit  = 1 << 31
	goneBits   = erasedBit | buriedBit
	erasedBit  = 1 << 63  // it was here
	buriedBit  = 1 << 62  // it was in some file
	maxRecord  = 32 << 20 // the server's own bound, in bytes
	maxAhead   = 1 << 24  // how far a record's sequence may plausibly be ahead of the last
)

// record is what a file holds of a message. Its subject and header point into the
// file's content, and are empty where it only says that a message is gone.
type record struct {
	sequence        uint64
	stored          time.Time
	buried          bool
	subject, header []byte
}

// readRecord returns the record that b begins with and its size, 0 when it is damaged.
func readRecord(b []byte, h hash.Hash64) (r record, size int) {
	if len(b) < recordHead+recordSum {
		return r, 0
	}
	length := binary.LittleEndian.Uint32(b)
	size = int(length &^ headerBit)
	body := recordHead + int(binary.LittleEndian.Uint16(b[20:]))
	rest := body
	if length&headerBit != 0 {
		rest += 4
	}
	if size > len(b) || size > maxRecord || rest+recordSum > size {
		return r, 0
	}
	h.Reset()
	h.Write(b[4:20])
	h.Write(b[recordHead:body])
	h.Write(b[rest : size-recordSum])
	if !bytes.Equal(h.Sum(nil), b[size-recordSum:size]) {
		return r, 0
	}
	sequence := binary.LittleEndian.Uint64(b[4:])
	r.sequence = sequence &^ goneBits
	r.buried = sequence&buriedBit != 0
	r.stored = time.Unix(0, int64(binary.LittleEndian.Uint64(b[12:])))
	if r.sequence != sequence {
		return r, size
	}
	// The checksum covers neither the lengths nor, without a header, where the
	// subject ends. With one, a wrong length of the subject shifts what is summed;
	// the header's own length must be where its empty line is.
	r.subject = b[recordHead:body]
	if rest == body {
		return r, 0
	}
	end := bytes.Index(b[rest:size-recordSum], []byte("\r\n\r\n")) + 4
	if end < 4 || end != int(binary.LittleEndian.Uint32(b[body:])) {
		return r, 0
	}
	r.header = b[rest : rest+end]
	return r, size
}

// nextRecord returns where the next good record begins, of a sequence up to most, or -1.
// The sequence is compared first, so that nearly no offset needs a checksum.
func nextRecord(b []byte, most uint64, h hash.Hash64) int {
	for at := 0; at+recordHead+recordSum <= len(b); at++ {
		sequence := binary.LittleEndian.Uint64(b[at+4:]) &^ goneBits
		if sequence == 0 || sequence > most {
			continue
		}
		if _, size := readRecord(b[at:], h); size > 0 {
			return at
		}
	}
	return -1
}

// erased is a record that says: the message of this sequence is gone.
func erased(sequence uint64, at time.Time, h hash.Hash64) []byte {
	b := make([]byte, recordHead, recordHead+recordSum)
	binary.LittleEndian.PutUint32(b, recordHead+recordSum)
	binary.LittleEndian.PutUint64(b[4:], sequence|erasedBit)
	binary.LittleEndian.PutUint64(b[12:], uint64(at.UnixNano()))
	h.Reset()
	h.Write(b[4:20])
	return h.Sum(b)
}

// recordHash is the server's checksum, keyed by what the file belongs to.
func recordHash(name string) hash.Hash64 {
	key := sha256.Sum256([]byte(name))
	h, err := highwayhash.New64(key[:])
	if err != nil {
		panic(err) // the key has the right size
	}
	return h
}
