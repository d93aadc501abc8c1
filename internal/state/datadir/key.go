package datadir

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

// sealedV1 begins what Seal returns: AES-256-GCM, a random 12-byte nonce, then
// the ciphertext and its tag. A later algorithm takes another byte.
const sealedV1 = 1

// keySize is AES-256's.
const keySize = 32

type sealer struct{ aead cipher.AEAD }

// Seal encrypts what must not be readable on disk. Associated is not encrypted,
// but OpenSealed must be given the same: pass the record's key, so that a sealed
// value cannot be moved to another record.
func (d *Dir) Seal(plaintext, associated []byte) []byte {
	nonce := make([]byte, d.key.aead.NonceSize(), 1+d.key.aead.NonceSize()+len(plaintext)+d.key.aead.Overhead())
	rand.Read(nonce)
	out := append([]byte{sealedV1}, nonce...)
	return d.key.aead.Seal(out, nonce, plaintext, associated)
}

// OpenSealed is Seal's inverse. It fails when the bytes were changed, belong to
// other associated data, or were sealed with another key.
func (d *Dir) OpenSealed(sealed, associated []byte) ([]byte, error) {
	size := d.key.aead.NonceSize()
	if len(sealed) == 0 || sealed[0] != sealedV1 {
		return nil, errors.New("open a sealed value: it has a form that this Kiln does not know")
	}
	if len(sealed) < 1+size+d.key.aead.Overhead() {
		return nil, errors.New("open a sealed value: it is cut short")
	}
	plain, err := d.key.aead.Open(nil, sealed[1:1+size], sealed[1+size:], associated)
	if err != nil {
		return nil, errors.New("open a sealed value: it is damaged or was sealed with another master key")
	}
	return plain, nil
}

// openKey reads the master key.
func openKey(name string) (sealer, error) {
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return sealer{}, fmt.Errorf("the master key is missing: what was sealed with it (environment variables, key secrets) cannot be read without it; restore it from a backup, or use another --data: %w", err)
	}
	if err != nil {
		return sealer{}, fmt.Errorf("open the master key: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return sealer{}, fmt.Errorf("open the master key: %w", err)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return sealer{}, fmt.Errorf("%s can be read by others (mode %04o): run chmod 600 on it", name, mode)
	}
	b, err := os.ReadFile(name)
	if err != nil {
		return sealer{}, fmt.Errorf("read the master key: %w", err)
	}
	key, err := hex.DecodeString(strings.TrimSpace(string(b)))
	if err != nil || len(key) != keySize {
		return sealer{}, fmt.Errorf("%s is damaged (it holds %d hexadecimal digits in a line): restore it from a backup", name, 2*keySize)
	}
	return newSealer(key)
}

func createKey(name string) (sealer, error) {
	key := make([]byte, keySize)
	rand.Read(key)
	if err := writeFile(name, []byte(hex.EncodeToString(key)+"\n")); err != nil {
		return sealer{}, fmt.Errorf("write the master key: %w", err)
	}
	return newSealer(key)
}

func newSealer(key []byte) (sealer, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return sealer{}, err
	}
	aead, err := cipher.NewGCM(block)
	return sealer{aead: aead}, err
}
