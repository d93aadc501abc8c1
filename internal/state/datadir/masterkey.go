package datadir

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

const (
	// keyCommandTimeout bounds a command that prints the master key: whoever starts
	// Kiln waits for it.
	keyCommandTimeout = 30 * time.Second
	// keyPipeDelay is how long the command's children may hold its output open after
	// its end.
	keyPipeDelay = time.Second
	// maxKeyText bounds what is read in search of a key, in bytes.
	maxKeyText = 4 << 10
	// maxComplaint is how much is shown of what a failed command says, in bytes.
	maxComplaint = 300
)

// MasterKey says where the master key comes from. At most one field is set; none
// means the data directory's own key file.
type MasterKey struct {
	File       string   // readable by its owner only
	Credential string   // name of a credential that systemd passes
	Command    []string // program and arguments; it prints the key
}

// Own tells whether the key is the data directory's own.
func (m MasterKey) Own() bool { return m.File == "" && m.Credential == "" && len(m.Command) == 0 }

// String names the source, never the key.
func (m MasterKey) String() string {
	switch {
	case m.File != "":
		return "the file " + m.File
	case m.Credential != "":
		return "systemd's credential " + m.Credential
	case len(m.Command) > 0:
		return "the command " + m.Command[0]
	default:
		return "the data directory's own " + keyFile
	}
}

// read gets the key. dir is the data directory.
func (m MasterKey) read(dir string) (sealer, error) {
	var text []byte
	var err error
	switch {
	case m.File != "":
		text, err = readKeyFile(m.File)
	case m.Credential != "":
		text, err = readCredential(m.Credential)
	case len(m.Command) > 0:
		text, err = runKeyCommand(m.Command)
	default:
		text, err = readKeyFile(filepath.Join(dir, keyFile))
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("it is missing: what is sealed with it (environment variables, key secrets) cannot be read without it; restore it from a backup, or use another --data: %w", err)
		}
	}
	if err != nil {
		return sealer{}, fmt.Errorf("the master key from %s: %w", m, err)
	}
	key, err := parseKey(text)
	if err != nil {
		return sealer{}, fmt.Errorf("the master key from %s %w", m, err)
	}
	return newSealer(key)
}

// parseKey takes a key in either usual form. Its errors never show the text.
func parseKey(text []byte) ([]byte, error) {
	trimmed := string(bytes.TrimSpace(text))
	for _, decode := range []func(string) ([]byte, error){hex.DecodeString, base64.StdEncoding.DecodeString} {
		if key, err := decode(trimmed); err == nil && len(key) == keySize {
			return key, nil
		}
	}
	return nil, fmt.Errorf("is damaged or no key: it has to be %d hexadecimal digits, or %d bytes in base64, such as the output of: openssl rand -hex %[2]d", 2*keySize, keySize)
}

func readKeyFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if mode := info.Mode(); !mode.IsRegular() {
		return nil, errors.New("it is not a file")
	} else if mode.Perm()&0o077 != 0 {
		return nil, fmt.Errorf("it can be read by others (mode %04o): run chmod 600 on it", mode.Perm())
	}
	return io.ReadAll(io.LimitReader(f, maxKeyText))
}

// readCredential reads what LoadCredential= or LoadCredentialEncrypted= of a unit
// names; systemd lets nobody else read it.
// https://systemd.io/CREDENTIALS
func readCredential(name string) ([]byte, error) {
	dir := os.Getenv("CREDENTIALS_DIRECTORY")
	if dir == "" {
		return nil, errors.New("CREDENTIALS_DIRECTORY is not set: start Kiln as a unit of systemd that has LoadCredential= or LoadCredentialEncrypted= for it")
	}
	f, err := os.Open(filepath.Join(dir, name))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxKeyText))
}

// runKeyCommand runs the program itself, no shell. What it prints is the key, so
// that it is in no error; what it complains about is.
func runKeyCommand(command []string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), keyCommandTimeout)
	defer cancel()
	var out, complaint bounded
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = &out, &complaint, keyPipeDelay
	err := cmd.Run()
	switch {
	case ctx.Err() != nil:
		return nil, fmt.Errorf("it did not end within %v", keyCommandTimeout)
	case err != nil:
		says := strings.TrimSpace(complaint.String())
		if says != "" {
			says = ": " + says[:min(len(says), maxComplaint)]
		}
		return nil, fmt.Errorf("it failed (%w)%s", err, says)
	case out.Len() == 0:
		return nil, errors.New("it printed nothing")
	}
	return out.Bytes(), nil
}

// bounded keeps the first maxKeyText bytes.
type bounded struct{ bytes.Buffer }

func (b *bounded) Write(p []byte) (int, error) {
	b.Buffer.Write(p[:min(len(p), maxKeyText-b.Len())])
	return len(p), nil
}
