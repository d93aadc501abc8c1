package cli

import (
	"context"
	"errors"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"
	"charm.land/lipgloss/v2"

	"kiln/internal/front/operator"
)

// topWindow is the time over which the live table counts, but for the rate.
const topWindow = time.Minute

// live shows the table until its reader quits.
func (t top) live(ctx context.Context, s *streams, c *client, first operator.Top) error {
	m := liveTop{top: t, ctx: ctx, client: c, looks: []operator.Top{first}, by: byRate}
	_, err := tea.NewProgram(m, tea.WithContext(ctx), tea.WithInput(s.in), tea.WithOutput(s.out)).Run()
	if errors.Is(err, context.Canceled) || errors.Is(err, tea.ErrInterrupted) || ctx.Err() != nil {
		return nil // ended from outside
	}
	return err
}

// liveTop is the live table, as bubbletea has it: each change makes another.
type liveTop struct {
	top
	ctx    context.Context // of the program
	client *client

	looks         []operator.Top // of the last topWindow, in order; never empty
	problem       error          // of the last look
	by            topOrder
	skip          int // lines that are scrolled past
	width, height int // 0: not known
}

type looked struct {
	top operator.Top
	err error
}

// Init looks for the first time.
func (m liveTop) Init() tea.Cmd { return m.later() }

// later looks after the interval.
func (m liveTop) later() tea.Cmd {
	return tea.Tick(m.Interval, func(time.Time) tea.Msg {
		now, err := m.look(m.ctx, m.client)
		return looked{now, err}
	})
}

// Update takes a look, a key or another size.
func (m liveTop) Update(message tea.Msg) (tea.Model, tea.Cmd) {
	switch message := message.(type) {
	case tea.WindowSizeMsg:
		m.width, m.height = message.Width, message.Height
	case looked:
		if m.problem = message.err; m.problem == nil {
			m.looks = append(m.looks, message.top)
			for len(m.looks) > 2 && message.top.At.Sub(m.looks[0].At) > topWindow {
				m.looks = m.looks[1:]
			}
		}
		return m, m.later()
	case tea.KeyPressMsg:
		switch key := message.String(); key {
		case "q", "esc", "ctrl+c":
			return m, tea.Quit
		case string(byRate), string(byMemory), string(byErrors), string(byName):
			m.by, m.skip = topOrder(key), 0
		case "down", "j":
			m.skip = min(m.skip+1, len(m.looks[len(m.looks)-1].Functions)-1)
		case "up", "k":
			m.skip--
		}
		m.skip = max(m.skip, 0)
	}
	return m, nil
}

var (
	strongStyle  = lipgloss.NewStyle().Bold(true)
	faintStyle   = lipgloss.NewStyle().Faint(true)
	problemStyle = lipgloss.NewStyle().Foreground(lipgloss.Red)
)

// View draws the table. A first look has nothing to be compared with but itself.
func (m liveTop) View() tea.View {
	last := len(m.looks) - 1
	view := compare(m.looks[0], m.looks[max(0, last-1)], m.looks[last])
	if last == 0 {
		view = compare(operator.Top{}, m.looks[0], m.looks[0])
	}
	view.order(m.by)
	view.Functions = view.Functions[min(m.skip, len(view.Functions)):]
	var text strings.Builder
	_ = view.print(&text, func(s string) string { return strongStyle.Render(s) }) // memory takes everything
	lines := strings.Split(strings.TrimSuffix(text.String(), "\n"), "\n")
	foot := faintStyle.Render("The last minute. i m e n: order by invocations, memory, errors, name; arrows; q quits.")
	if m.problem != nil {
		foot = problemStyle.Render(m.client.explain(m.problem).Error())
	}
	if m.height > 2 && len(lines) > m.height-2 {
		lines = lines[:m.height-2]
	}
	body := strings.Join(append(lines, "", foot), "\n")
	if m.width > 0 {
		body = lipgloss.NewStyle().MaxWidth(m.width).Render(body)
	}
	v := tea.NewView(body)
	v.AltScreen = true
	return v
}
