package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"

	"github.com/docker/cli/cli/command/formatter"

	"github.com/docker-netcheck/docker-netcheck/checks"
	"github.com/docker-netcheck/docker-netcheck/internal/netstate"
)

// tableFormat is what --format table prints.
const tableFormat = "table {{.Container}}\t{{.Direction}}\t{{.Port}}\t{{.From}}\t{{.Family}}\t{{.Status}}\t{{.Check}}\t{{.Object}}"

// printFormat prints the report as one JSON document, or each target by a template.
func printFormat(out io.Writer, format string, trunc bool, report *checks.Report) error {
	switch format {
	case formatter.JSONFormatKey:
		encoder := json.NewEncoder(out)
		encoder.SetEscapeHTML(false)
		return encoder.Encode(report)
	case formatter.TableFormatKey:
		format = tableFormat
	}
	context := formatter.Context{Output: out, Format: formatter.Format(format), Trunc: trunc}
	err := context.Write(newTargetRow(), func(write func(formatter.SubContext) error) error {
		for i := range report.Targets {
			if err := write(&targetRow{judgement: report.Targets[i]}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("--format: %w", err)
	}
	return nil
}

// printNames prints the names of the containers that fail, each once.
func printNames(out io.Writer, report *checks.Report) error {
	var names []string
	for _, target := range report.Targets {
		if target.Status == checks.Fail && !slices.Contains(names, target.Container) {
			names = append(names, target.Container)
			if _, err := fmt.Fprintln(out, clean(target.Container)); err != nil {
				return err
			}
		}
	}
	return nil
}

// A targetRow is a target as templates see it: its methods are the fields.
type targetRow struct {
	formatter.HeaderContext
	judgement checks.Judgement
}

func newTargetRow() *targetRow {
	row := &targetRow{}
	row.Header = formatter.SubHeaderContext{
		"Container": "CONTAINER", "ID": "ID", "Direction": "DIRECTION", "Port": "PORT", "Host": "HOST", "From": "FROM",
		"Client": "CLIENT", "Family": "FAMILY", "Status": "STATUS", "Check": "CHECK", "Object": "OBJECT", "Problem": "PROBLEM",
	}
	return row
}

// MarshalJSON makes {{json .}} the target's part of the report.
func (r *targetRow) MarshalJSON() ([]byte, error) { return json.Marshal(r.judgement) }

func (r *targetRow) Container() string { return clean(r.judgement.Container) }
func (r *targetRow) ID() string        { return r.judgement.ID }
func (r *targetRow) Direction() string { return r.judgement.Direction }
func (r *targetRow) Port() string      { return r.judgement.Port.String() }
func (r *targetRow) From() string      { return r.judgement.From }
func (r *targetRow) Family() string    { return r.judgement.Family.String() }
func (r *targetRow) Status() string    { return string(r.judgement.Status) }

func (r *targetRow) Host() string {
	if !r.judgement.Host.IsValid() {
		return ""
	}
	return r.judgement.Host.String()
}

func (r *targetRow) Client() string {
	if r.judgement.Direction != netstate.In || !r.judgement.Client.IsValid() {
		return ""
	}
	return r.judgement.Client.String()
}

func (r *targetRow) Check() string   { return r.cause().Check }
func (r *targetRow) Object() string  { return clean(r.cause().Object) }
func (r *targetRow) Problem() string { return clean(r.cause().Problem) }

func (r *targetRow) cause() checks.Cause {
	if r.judgement.Cause == nil {
		return checks.Cause{}
	}
	return *r.judgement.Cause
}
