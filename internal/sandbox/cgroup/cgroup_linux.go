package cgroup

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"kiln/internal/sandbox"
)

// Timeout bounds what waits for killed processes: one leaves its cgroup at once,
// unless it hangs in the kernel.
const Timeout = 10 * time.Second

// shortPause is the first of the pauses between two looks at a cgroup.
const shortPause = 100 * time.Microsecond

// Hierarchy is where this daemon may make cgroups: four v1 directories, or one
// v2 directory in their place. A controller that is missing has none. The zero
// Hierarchy makes none.
type Hierarchy struct {
	v2                         bool
	memory, pids, freezer, cpu string
}

// dirs are the different directories of the hierarchy.
func (h Hierarchy) dirs() []string {
	var list []string
	for _, d := range []string{h.memory, h.pids, h.freezer, h.cpu} {
		if d != "" && !slices.Contains(list, d) {
			list = append(list, d)
		}
	}
	return list
}

// Find looks where cgroups can be made under the given name, and says what it
// did not find.
func Find(name string) (h Hierarchy, missing []string, err error) {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return Hierarchy{}, nil, err
	}
	self, _ := os.ReadFile("/proc/self/cgroup")
	h, missing = find(string(mounts), string(self), name)
	return h, missing, nil
}

// find is Find in what it is given. mounts and self are /proc/self/mounts and
// /proc/self/cgroup; v1 wins where the memory controller is there, because a
// controller is only ever in one of them.
func find(mounts, self, name string) (h Hierarchy, missing []string) {
	v1, v2 := cgroupMounts(mounts)
	if v1["memory"] == "" && v2 != "" {
		return findV2(v2, self, name)
	}
	for controller, to := range map[string]*string{"memory": &h.memory, "pids": &h.pids, "freezer": &h.freezer, "cpu": &h.cpu} {
		if v1[controller] == "" {
			missing = append(missing, lack(controller)+": this kernel or container has no cgroup controller "+controller)
			continue
		}
		dir := filepath.Join(v1[controller], name)
		if err := writable(dir); err != nil {
			missing = append(missing, fmt.Sprintf("%s: %v: start the daemon as root, or use cgroup v2 with delegation", lack(controller), err))
			continue
		}
		*to = dir
	}
	if h.cpu != "" {
		// All functions together against one of the machine's other programs: as
		// much as if each of its processors had one of ours. Without it some still run.
		_ = write(h.cpu, "cpu.shares", strconv.Itoa(sharesOfOne*runtime.NumCPU()))
	}
	slices.Sort(missing)
	return h, missing
}

// lack is the word for what is lost without a controller.
func lack(controller string) string {
	return map[string]string{"memory": "memory limits", "pids": "process limits", "freezer": "freezing idle environments", "cpu": "processor time by memory"}[controller]
}

// cgroupMounts returns where each v1 controller and v2 are mounted.
func cgroupMounts(mounts string) (v1 map[string]string, v2 string) {
	v1 = map[string]string{}
	for line := range strings.Lines(mounts) {
		f := strings.Fields(line)
		if len(f) < 4 {
			continue
		}
		switch f[2] {
		case "cgroup2":
			if v2 == "" {
				v2 = f[1]
			}
		case "cgroup":
			for o := range strings.SplitSeq(f[3], ",") {
				if v1[o] == "" {
					v1[o] = f[1]
				}
			}
		}
	}
	return v1, v2
}

// findV2 chooses a directory of cgroup v2. A process may not live beside
// cgroups with limits, so a daemon that has a cgroup to itself (a systemd unit
// or scope with Delegate=yes) first moves down into a leaf of it. Otherwise root takes
// a cgroup at the top, and everybody else has none.
func findV2(mount, self, name string) (h Hierarchy, missing []string) {
	own := mount
	for line := range strings.Lines(self) {
		if p, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			own = filepath.Join(mount, p)
		}
	}
	dir, err := "", error(nil)
	if own != mount && alone(own) {
		dir, err = delegated(own, name)
	}
	if dir == "" {
		if topErr := enable(mount); topErr == nil {
			dir = filepath.Join(mount, name)
			err = makeV2(dir)
		} else {
			err = errors.Join(err, topErr)
		}
	}
	if err != nil {
		return Hierarchy{}, []string{fmt.Sprintf(
			"memory and process limits, freezing: no cgroup is delegated to the daemon (%v): start it with systemd-run --user --scope -p Delegate=yes, in a unit with Delegate=yes, or as root",
			strings.ReplaceAll(err.Error(), "\n", "; "))}
	}
	h = Hierarchy{v2: true, freezer: dir}
	on, _ := os.ReadFile(filepath.Join(dir, "cgroup.subtree_control"))
	for controller, to := range map[string]*string{"memory": &h.memory, "pids": &h.pids, "cpu": &h.cpu} {
		if slices.Contains(strings.Fields(string(on)), controller) {
			*to = dir
		} else {
			missing = append(missing, lack(controller)+": the cgroup controller "+controller+" is not delegated to the daemon")
		}
	}
	slices.Sort(missing)
	return h, missing
}

// alone reports whether this process is the only one of a cgroup.
func alone(dir string) bool {
	b, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	return err == nil && strings.TrimSpace(string(b)) == strconv.Itoa(os.Getpid())
}

func delegated(own, name string) (string, error) {
	leaf := filepath.Join(own, "daemon")
	if err := os.Mkdir(leaf, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return "", err
	}
	if err := write(leaf, "cgroup.procs", strconv.Itoa(os.Getpid())); err != nil {
		return "", err
	}
	if err := enable(own); err != nil {
		return "", err
	}
	dir := filepath.Join(own, name)
	return dir, makeV2(dir)
}

// makeV2 makes a cgroup whose children can have limits.
func makeV2(dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return enable(dir)
}

// enable gives a cgroup's children the controllers that it has itself.
func enable(dir string) error {
	has, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return err
	}
	for _, c := range []string{"cpu", "memory", "pids"} {
		if slices.Contains(strings.Fields(string(has)), c) {
			// Where a real-time process lives, cpu cannot be had.
			if err := write(dir, "cgroup.subtree_control", "+"+c); err != nil && c != "cpu" {
				return err
			}
		}
	}
	return writable(dir)
}

// writable makes dir if it is missing; another daemon's may be there already.
func writable(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := unix.Access(dir, unix.W_OK); err != nil {
		return &os.PathError{Op: "write to", Path: dir, Err: err}
	}
	return nil
}

func write(dir, file, value string) error {
	return os.WriteFile(filepath.Join(dir, file), []byte(value), 0o644)
}

// Cgroup is one sandbox's. Methods are safe for concurrent use, but for Make and Remove.
type Cgroup struct {
	Hierarchy // its own directories
	tops      Hierarchy
}

// At names a sandbox's cgroup without making it.
func (h Hierarchy) At(group, id string) *Cgroup {
	rel := filepath.Join(escape(group), id)
	c := &Cgroup{tops: h, Hierarchy: Hierarchy{v2: h.v2}}
	for _, x := range []struct {
		top string
		to  *string
	}{{h.memory, &c.memory}, {h.pids, &c.pids}, {h.freezer, &c.freezer}, {h.cpu, &c.cpu}} {
		if x.top != "" {
			*x.to = filepath.Join(x.top, rel)
		}
	}
	return c
}

// escape keeps the names of groups apart from the files that the kernel puts
// beside them, as systemd does: a function may be called "tasks".
func escape(group string) string {
	parts := strings.Split(group, "/")
	for i, p := range parts {
		switch {
		case p == "tasks", p == "notify_on_release", p == "release_agent",
			strings.ContainsRune(p, '.'), strings.HasPrefix(p, "_"):
			parts[i] = "_" + p
		}
	}
	return filepath.Join(parts...)
}

// Limits are what the processes of a cgroup may have together.
type Limits struct {
	MemoryBytes int64 // 0 for no limit
	Processes   int   // and threads
	MilliCPU    int64 // the part of the processors' time, where others want it too; 0 for an even one
}

// Make makes the cgroup with its limits. One at a time: what is made on the way
// must be complete before another relies on it.
func (c *Cgroup) Make(l Limits) error {
	for i, dir := range c.dirs() {
		if err := c.makeDir(c.tops.dirs()[i], dir); err != nil {
			return fmt.Errorf("cgroup: %w", err)
		}
	}
	return c.Limit(l)
}

// Limit sets the limits of a cgroup that is there already. A bound on memory is not
// taken away again.
func (c *Cgroup) Limit(l Limits) error {
	type limit struct {
		dir, file, value string
		optional         bool
	}
	var limits []limit
	n := strconv.FormatInt(l.MemoryBytes, 10)
	switch {
	case c.memory == "" || l.MemoryBytes == 0:
	case c.v2:
		limits = []limit{
			{c.memory, "memory.max", n, false},
			{c.memory, "memory.swap.max", "0", true}, // there only with swap
		}
	default:
		limits = []limit{
			{c.memory, "memory.limit_in_bytes", n, false},
			{c.memory, "memory.memsw.limit_in_bytes", n, true}, // there only with swap accounting
		}
	}
	if c.pids != "" {
		limits = append(limits, limit{c.pids, "pids.max", strconv.Itoa(l.Processes), false})
	}
	if c.cpu != "" && l.MilliCPU > 0 {
		// A group weighs as much as one of its sandboxes: many of them get no more.
		file, value := c.weight(l.MilliCPU)
		limits = append(limits, limit{c.cpu, file, value, false}, limit{filepath.Dir(c.cpu), file, value, false})
	}
	for _, l := range limits {
		if err := write(l.dir, l.file, l.value); err != nil && !(l.optional && missingFile(err)) {
			return fmt.Errorf("cgroup limit: %w", err)
		}
	}
	return nil
}

// Add moves a process inside; what it starts from then on is born there.
func (c *Cgroup) Add(pid int) error {
	for _, dir := range c.dirs() {
		if err := write(dir, "cgroup.procs", strconv.Itoa(pid)); err != nil {
			return fmt.Errorf("enter the cgroup: %w", err)
		}
	}
	return nil
}

// Used is the anonymous and shared memory inside now.
func (c *Cgroup) Used() (int64, error) {
	if c.memory == "" {
		return 0, nil
	}
	b, err := os.ReadFile(filepath.Join(c.memory, "memory.stat"))
	return anonymous(b, c.v2), err
}

// Weights of what has one processor's time: the kernel's own for a new cgroup.
const (
	sharesOfOne = 1024 // v1
	weightOfOne = 100  // v2
)

// weight is the file with a cgroup's weight, and its content.
func (h Hierarchy) weight(milliCPU int64) (file, value string) {
	if h.v2 {
		return "cpu.weight", strconv.FormatInt(min(max(milliCPU*weightOfOne/1000, 1), 10_000), 10)
	}
	return "cpu.shares", strconv.FormatInt(max(milliCPU*sharesOfOne/1000, 2), 10)
}

// cpuPeriod is what processor time is portioned in, in µs: short enough that a
// small part does not make a request wait for long. The kernel's is 100 ms.
const cpuPeriod = 20_000

// LimitCPU bounds the processors' time also where nobody else wants it.
func (c *Cgroup) LimitCPU(milliCPU int64) error {
	if c.cpu == "" {
		return fmt.Errorf("no cgroup controller cpu here: %w", errors.ErrUnsupported)
	}
	quota := strconv.FormatInt(max(milliCPU*cpuPeriod/1000, 1000), 10) // the kernel's least is 1 ms
	period := strconv.Itoa(cpuPeriod)
	if c.v2 {
		return write(c.cpu, "cpu.max", quota+" "+period)
	}
	if err := write(c.cpu, "cpu.cfs_period_us", period); err != nil {
		return err
	}
	return write(c.cpu, "cpu.cfs_quota_us", quota)
}

// missingFile reports whether a cgroup has no such file, which it says as
// refusing to make it.
func missingFile(err error) bool {
	return errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission)
}

// makeDir makes dir and its parents below top.
func (c *Cgroup) makeDir(top, dir string) error {
	if err := os.Mkdir(dir, 0o755); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	if c.v2 {
		if err := c.enableBelow(top, filepath.Dir(dir)); err != nil {
			return err
		}
	}
	return os.Mkdir(dir, 0o755)
}

// enableBelow passes the controllers on from top down to dir.
func (c *Cgroup) enableBelow(top, dir string) error {
	rel, err := filepath.Rel(top, dir)
	if err != nil || rel == "." {
		return err
	}
	for p := range strings.SplitSeq(rel, "/") {
		top = filepath.Join(top, p)
		if err := enable(top); err != nil {
			return err
		}
	}
	return nil
}

// Entrances are what init needs to get its children in: files for its forking
// thread to write to (v1), or the cgroup to clone them into (v2).
func (c *Cgroup) Entrances() (tasks []string, into string) {
	if c.v2 {
		return nil, c.freezer
	}
	for _, d := range c.dirs() {
		tasks = append(tasks, filepath.Join(d, "tasks"))
	}
	return tasks, ""
}

// Procs lists the processes inside.
func (c *Cgroup) Procs() []int {
	dirs := c.dirs()
	if len(dirs) == 0 {
		return nil
	}
	b, _ := os.ReadFile(filepath.Join(dirs[0], "cgroup.procs"))
	var pids []int
	for f := range strings.FieldsSeq(string(b)) {
		if pid, err := strconv.Atoi(f); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// peakFile has the high-water mark of all memory, page cache included.
func (h Hierarchy) peakFile() string {
	if h.v2 {
		return "memory.peak"
	}
	return "memory.max_usage_in_bytes"
}

// anonymous sums anonymous and shared memory from memory.stat, swapped out or
// not. In v1 "rss" is anonymous only, whatever its name.
func anonymous(stat []byte, v2 bool) (sum int64) {
	want := []string{"total_rss", "total_shmem", "total_swap"}
	if v2 {
		want = []string{"anon", "shmem"}
	}
	for line := range bytes.Lines(stat) {
		name, value, _ := strings.Cut(strings.TrimSpace(string(line)), " ")
		if slices.Contains(want, name) {
			n, _ := strconv.ParseInt(value, 10, 64)
			sum += n
		}
	}
	return sum
}

// OOMKills counts the processes that the memory limit killed.
func (c *Cgroup) OOMKills() int64 {
	if c.memory == "" {
		return 0
	}
	file := "memory.oom_control"
	if c.v2 {
		file = "memory.events"
	}
	b, _ := os.ReadFile(filepath.Join(c.memory, file))
	return field(b, "oom_kill")
}

// field reads "name value" lines.
func field(b []byte, name string) int64 {
	for s := bufio.NewScanner(bytes.NewReader(b)); s.Scan(); {
		if n, value, _ := strings.Cut(s.Text(), " "); n == name {
			v, _ := strconv.ParseInt(value, 10, 64)
			return v
		}
	}
	return 0
}

// Freeze stops or continues every process inside, and waits until it is so.
func (c *Cgroup) Freeze(ctx context.Context, on bool) error {
	if c.freezer == "" {
		return fmt.Errorf("no cgroup freezer here: %w", errors.ErrUnsupported)
	}
	file, value := "freezer.state", "THAWED"
	switch {
	case c.v2 && on:
		file, value = "cgroup.freeze", "1"
	case c.v2:
		file, value = "cgroup.freeze", "0"
	case on:
		value = "FROZEN"
	}
	for pause := shortPause; ; pause = min(2*pause, 10*time.Millisecond) {
		// Again and again in v1, whose freezer gives up on a busy process.
		if err := write(c.freezer, file, value); err != nil {
			return fmt.Errorf("freezer: %w", err)
		}
		if c.frozen() == on {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
}

func (c *Cgroup) frozen() bool {
	if c.v2 {
		b, _ := os.ReadFile(filepath.Join(c.freezer, "cgroup.events"))
		return field(b, "frozen") == 1
	}
	b, _ := os.ReadFile(filepath.Join(c.freezer, "freezer.state"))
	return strings.TrimSpace(string(b)) == "FROZEN"
}

// Kill ends what may still be inside, frozen or not, for Sweep: while a daemon
// lives, its sandboxes' processes end with their init.
func (c *Cgroup) Kill(ctx context.Context) error {
	if c.v2 {
		if err := write(c.freezer, "cgroup.kill", "1"); err == nil {
			return nil
		}
	}
	for pause := shortPause; ; pause = min(2*pause, 10*time.Millisecond) {
		pids := c.Procs()
		for _, pid := range pids {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		if c.freezer != "" {
			// A signal reaches a frozen process of v1 once it is thawed.
			_ = c.Freeze(ctx, false)
		}
		if len(pids) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("processes %v survive SIGKILL: %w", pids, ctx.Err())
		case <-time.After(pause):
		}
	}
}

// Remove removes the cgroup. It is no error if it is gone.
func (c *Cgroup) Remove(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	var failed error
	for _, dir := range c.dirs() {
		failed = errors.Join(failed, removeCgroup(ctx, dir))
	}
	return failed
}

// RemoveParents removes those of its parents that are empty.
func (c *Cgroup) RemoveParents() {
	tops := c.tops.dirs()
	for i, dir := range c.dirs() {
		sandbox.RemoveEmptyParents(dir, tops[i])
	}
}

func removeCgroup(ctx context.Context, dir string) error {
	for pause := shortPause; ; pause = min(2*pause, 10*time.Millisecond) {
		err := unix.Rmdir(dir)
		if err == nil || errors.Is(err, unix.ENOENT) {
			return nil
		}
		if !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("remove cgroup %s: %w", dir, err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("remove cgroup %s: %w", dir, err)
		case <-time.After(pause):
		}
	}
}
