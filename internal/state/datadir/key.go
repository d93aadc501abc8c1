package datadir

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
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
func (d *Dir) Seal(plaintext, associated []byte) []byte { return d.key.seal(plaintext, associated) }

// OpenSealed is Seal's inverse. It fails when the bytes were changed, belong to
// other associated data, or were sealed with another key.
func (d *Dir) OpenSealed(sealed, associated []byte) ([]byte, error) {
	return d.key.open(sealed, associated)
}

func (s sealer) seal(plaintext, associated []byte) []byte {
	nonce := make([]byte, s.aead.NonceSize(), 1+s.aead.NonceSize()+len(plaintext)+s.aead.Overhead())
	rand.Read(nonce)
	out := append([]byte{sealedV1}, nonce...)
	return s.aead.Seal(out, nonce, plaintext, associated)
}

func (s sealer) open(sealed, associated []byte) ([]byte, error) {
	size := s.aead.NonceSize()
	if len(sealed) == 0 || sealed[0] != sealedV1 {
		return nil, errors.New("open a sealed value: it has a form that this Kiln does not know")
	}
	if len(sealed) < 1+size+s.aead.Overhead() {
		return nil, errors.New("open a sealed value: it is cut short")
	}
	plain, err := s.aead.Open(nil, sealed[1:1+size], sealed[1+size:], associated)
	if err != nil {
		return nil, errors.New("open a sealed value: it is damaged or was sealed with another key")
	}
	return plain, nil
}

func newSealer(key []byte) (sealer, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return sealer{}, err
	}
	aead, err := cipher.NewGCM(block)
	return sealer{aead: aead}, err
}

// dataKey is the content of the data key's file: the key that seals everything
// else, itself sealed under the master key. Another master key means to write this
// file anew, and nothing else; one that does not open it is the wrong one.
type dataKey struct {
	Own    bool   `json:"own_master_key"` // under the directory's own master key, not a configured one
	Sealed []byte `json:"sealed"`
}

// dataKeyPlace binds the sealed data key to what it is.
var dataKeyPlace = []byte("kiln data key")

func (d *Dir) dataKeyFile() string { return filepath.Join(d.path, dataKeyFile) }

func (d *Dir) readDataKey() (k dataKey, err error) {
	b, err := os.ReadFile(d.dataKeyFile())
	if errors.Is(err, fs.ErrNotExist) {
		return k, fmt.Errorf("%s is missing: what is sealed with it (environment variables, key secrets) cannot be read without it; restore it from a backup, or use another --data", d.dataKeyFile())
	}
	if err != nil {
		return k, fmt.Errorf("read the data key: %w", err)
	}
	if json.Unmarshal(b, &k) != nil || len(k.Sealed) == 0 {
		return k, fmt.Errorf("%s is damaged: restore it from a backup", d.dataKeyFile())
	}
	return k, nil
}

// openKey opens the data key with the master key from where it is said to come.
func (d *Dir) openKey(from MasterKey) ([]byte, error) {
	k, err := d.readDataKey()
	if err != nil {
		return nil, err
	}
	switch {
	case k.Own && !from.Own():
		return nil, fmt.Errorf("%s is sealed with its own master key, and %s is configured: run kiln reseal once with this configuration, or leave it out", d.path, from)
	case !k.Own && from.Own():
		return nil, fmt.Errorf("%s is sealed with a master key that is not in it: set master_key_file, master_key_credential or master_key_command to where it is", d.path)
	}
	master, err := from.read(d.path)
	if err != nil {
		return nil, err
	}
	key, err := master.open(k.Sealed, dataKeyPlace)
	if err != nil {
		return nil, fmt.Errorf("the master key from %s is not the one that %s is sealed with: configure that one; to change it, run kiln reseal, which needs both", from, d.path)
	}
	return key, nil
}

// sealKey writes the data key's file; the directory's own master key is made where
// it is to be used and there is none.
func (d *Dir) sealKey(key []byte, to MasterKey) error {
	if to.Own() {
		name := filepath.Join(d.path, keyFile)
		if _, err := os.Stat(name); errors.Is(err, fs.ErrNotExist) {
			own := make([]byte, keySize)
			rand.Read(own)
			if err := writeFile(name, []byte(hex.EncodeToString(own)+"\n")); err != nil {
				return fmt.Errorf("write the master key: %w", err)
			}
		}
	}
	master, err := to.read(d.path)
	if err != nil {
		return err
	}
	b, err := json.Marshal(dataKey{Own: to.Own(), Sealed: master.seal(key, dataKeyPlace)})
	if err != nil {
		return err
	}
	if err := writeFile(d.dataKeyFile(), append(b, '\n')); err != nil {
		return fmt.Errorf("write the data key: %w", err)
	}
	return nil
}

// Reseal seals the data key of a directory that nobody uses under another master
// key. It is one small write: done or not, whatever happens, and to be run again
// when in doubt.
func Reseal(path string, from, to MasterKey) error {
	if _, err := os.Stat(filepath.Join(path, formatFile)); err != nil {
		return fmt.Errorf("there is no data directory to reseal: %w", err)
	}
	d, err := Open(path, Config{MasterKey: to})
	done := err == nil // an earlier call was cut off after its write, or there is nothing to do
	if !done {
		if d, err = Open(path, Config{MasterKey: from}); err != nil {
			return err
		}
	}
	defer d.Close()
	if !done {
		key, err := d.openKey(from)
		if err != nil {
			return err
		}
		if err := d.sealKey(key, to); err != nil {
			return err
		}
	}
	if to.Own() {
		return nil
	}
	if err := os.Remove(filepath.Join(d.path, keyFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the master key that is no longer used: %w", err)
	}
	return syncDir(d.path)
}

// envelope is the migration from format 1, whose master key sealed everything
// itself: it is the data key from now on, and what opens it until the directory is
// resealed.
func envelope(path string) error {
	d := &Dir{path: path}
	text, err := readKeyFile(filepath.Join(path, keyFile))
	if err != nil {
		return fmt.Errorf("the master key: %w", err)
	}
	key, err := parseKey(text)
	if err != nil {
		return fmt.Errorf("the master key %w", err)
	}
	return d.sealKey(key, MasterKey{})
}
