package datadir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// restoringDir is where in a data directory a restore builds what the directory
// is to hold. Without a format file beside it, it says that the restore was cut off.
const restoringDir = "restoring" + building

// Parts are the folders that a backup has of a data directory, besides what the
// engine and the logs keep.
func Parts() []string { return []string{imagesDir, runtimesDir} }

// TelemetryIn is Telemetry of a directory that is being restored.
func TelemetryIn(dir string) string { return filepath.Join(dir, telemetry) }

// Identity returns the small files that make a directory the one it is, by name,
// and whether they hold the master key.
func (d *Dir) Identity() (files map[string][]byte, own bool, err error) {
	files = map[string][]byte{}
	for _, name := range []string{formatFile, dataKeyFile, keyFile} {
		b, err := os.ReadFile(filepath.Join(d.path, name))
		if errors.Is(err, fs.ErrNotExist) && name == keyFile {
			continue
		}
		if err != nil {
			return nil, false, fmt.Errorf("back up the data directory: %w", err)
		}
		files[name] = b
	}
	_, own = files[keyFile]
	return files, own, nil
}

// RestoreIdentity writes one of those files into a directory that is being restored.
func RestoreIdentity(dir, name string, content []byte) error {
	switch name {
	case formatFile, dataKeyFile, keyFile:
		return writeFile(filepath.Join(dir, name), content)
	default:
		return fmt.Errorf("the backup is damaged: %s is no file of a data directory", name)
	}
}

// Restore makes a data directory of what fill puts into a folder: whole, or not
// at all. There must be none, or an empty one, or what a restore has left that was
// cut off.
func Restore(path string, fill func(dir string) error) (err error) {
	path, err = filepath.Abs(path)
	if err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	_, err = os.Stat(path)
	made := errors.Is(err, fs.ErrNotExist)
	if err := os.MkdirAll(path, 0o700); err != nil {
		return fmt.Errorf("create the data directory: %w", err)
	}
	lock, err := acquire(path)
	if err != nil {
		return err
	}
	defer func() { _ = release(lock) }()
	if err := vacate(path); err != nil {
		return err
	}
	dir := filepath.Join(path, restoringDir)
	if err = os.Mkdir(dir, 0o700); err == nil {
		if err = fill(dir); err == nil {
			err = settle(path, dir)
		}
	}
	if err == nil {
		return os.RemoveAll(dir)
	}
	err = fmt.Errorf("restore into %s: %w", path, err)
	if made {
		return errors.Join(err, os.RemoveAll(path))
	}
	return errors.Join(err, vacate(path))
}

// vacate removes what a restore has left, and refuses what anything else has.
func vacate(path string) error {
	entries, err := os.ReadDir(path)
	if err != nil {
		return fmt.Errorf("read the data directory: %w", err)
	}
	var ours []string
	cut := false
	for _, e := range entries {
		switch n := e.Name(); n {
		case lockFile, "lost+found":
		case formatFile:
			return fmt.Errorf("%s is a data directory already: restore into an empty one", path)
		case restoringDir:
			cut = true
		default:
			ours = append(ours, n)
		}
	}
	if len(ours) > 0 && !cut {
		return fmt.Errorf("%s is not empty (it holds %s): restore into an empty directory", path, ours[0])
	}
	for _, n := range append(ours, restoringDir) { // last, because it is what tells
		if err := os.RemoveAll(filepath.Join(path, n)); err != nil {
			return fmt.Errorf("remove what an unfinished restore has left: %w", err)
		}
	}
	return nil
}

// settle moves what was built to its place. The format file comes last: a
// directory that has it is complete.
func settle(path, dir string) error {
	if _, err := os.Stat(filepath.Join(dir, formatFile)); err != nil {
		return fmt.Errorf("the backup has no %s", formatFile)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() == formatFile {
			continue
		}
		if err := os.Rename(filepath.Join(dir, e.Name()), filepath.Join(path, e.Name())); err != nil {
			return err
		}
	}
	if err := syncDir(path); err != nil {
		return err
	}
	if err := os.Rename(filepath.Join(dir, formatFile), filepath.Join(path, formatFile)); err != nil {
		return err
	}
	return syncDir(path)
}
