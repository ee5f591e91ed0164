package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/commutatordb/commutator/table"
)

func applyCommand() *cobra.Command {
	var a applier
	var dryRun bool
	c := &cobra.Command{
		Use:   "apply -f FILE|DIR",
		Short: "Make tables and replicas as a file says",
		Long: `Create and change tables, and their replicas in all regions, as global-table files say: YAML or JSON
with the properties of CloudFormation's AWS::DynamoDB::GlobalTable, or whole templates. Applying a
file again changes nothing. docs/operate/cli.md has an example.`,
		Example: `  commutator apply -f tables.yaml
  commutator apply -f tables/ --dry-run
  commutator apply -f tables.yaml --allow-delete      # replicas and indexes may go, and data with them`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return a.run(c, dryRun) },
	}
	a.addFlags(c)
	c.Flags().BoolVar(&dryRun, "dry-run", false, "only say what would be done")
	return c
}

func planCommand() *cobra.Command {
	var a applier
	c := &cobra.Command{
		Use:     "plan -f FILE|DIR",
		Aliases: []string{"diff"},
		Short:   "Say what apply would do",
		Long:    "Say what apply would do to make tables and replicas as global-table files say, and do nothing.",
		Example: `  commutator plan -f tables.yaml
  commutator plan -f tables/ -o json`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return a.run(c, true) },
	}
	a.addFlags(c)
	return c
}

// applier brings tables to what files say.
type applier struct {
	flags       *clientFlags
	files       []string
	allowDelete bool
	timeout     time.Duration

	clients  []*client
	progress io.Writer
}

func (a *applier) addFlags(c *cobra.Command) {
	a.flags = addClientFlags(c)
	c.Flags().StringSliceVarP(&a.files, "file", "f", nil, "file, or directory with .yaml, .yml and .json files; - is standard input; may be given again")
	c.Flags().BoolVar(&a.allowDelete, "allow-delete", false, "replicas and indexes that the files do not name may go, and their data with them")
	c.Flags().DurationVar(&a.timeout, "timeout", 15*time.Minute, "how long all of it may take")
	addOutputFlag(c)
}

// Results of a table's plan.
const (
	unchanged = "unchanged"
	planned   = "planned"
	created   = "created"
	updated   = "updated"
)

// tableResult is what became of one table.
type tableResult struct {
	Table    string
	Region   string // that the table is made and changed in
	Result   string
	Changes  []string
	Warnings []string `json:",omitempty"`
}

func (a *applier) run(c *cobra.Command, dryRun bool) error {
	if len(a.files) == 0 {
		return usageError{errors.New("-f is not given: name a file or a directory")}
	}
	tables, err := readTables(a.files, c.InOrStdin())
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(c.Context(), a.timeout, fmt.Errorf("not done after %s (--timeout)", a.timeout))
	defer cancel()
	var down error
	if a.clients, down, err = a.flags.connect(ctx); err != nil {
		return err
	}
	a.progress = c.ErrOrStderr()
	if down != nil {
		fmt.Fprintln(a.progress, "warning:", down)
	}
	results := []tableResult{}
	var errs []error
	for i := range tables {
		r, err := a.table(ctx, &tables[i], dryRun)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", tables[i].TableName, err))
			continue
		}
		results = append(results, r)
	}
	return errors.Join(append([]error{show(c, results, func(w io.Writer) {
		for _, r := range results {
			if r.Result != planned {
				fmt.Fprintf(w, "%s: %s\n", r.Table, r.Result)
				continue
			}
			for _, change := range r.Changes {
				fmt.Fprintf(w, "%s: would %s\n", r.Table, change)
			}
		}
	})}, errs...)...)
}

// readTables reads all tables of the files, or returns all errors in them.
func readTables(names []string, stdin io.Reader) ([]table.GlobalTable, error) {
	var all []table.GlobalTable
	var errs []error
	from := map[string]string{} // table -> file
	read := func(name string) {
		b, err := readFile(name, stdin)
		var tables []table.GlobalTable
		if err == nil {
			tables, err = table.ParseGlobalTables(b)
			if err != nil {
				err = fmt.Errorf("%s: %w", name, err)
			}
		}
		errs = append(errs, err)
		for _, t := range tables {
			if other, ok := from[t.TableName]; ok && other != name {
				errs = append(errs, fmt.Errorf("%s: table %s is in %s too", name, t.TableName, other))
			}
			from[t.TableName] = name
		}
		all = append(all, tables...)
	}
	for _, name := range names {
		if info, err := os.Stat(name); err != nil || !info.IsDir() {
			read(name)
			continue
		}
		entries, err := os.ReadDir(name)
		errs = append(errs, err)
		found := false
		for _, e := range entries {
			if !e.IsDir() && slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(e.Name())) {
				found = true
				read(filepath.Join(name, e.Name()))
			}
		}
		if !found {
			errs = append(errs, fmt.Errorf("%s: there is no .yaml, .yml or .json file in it", name))
		}
	}
	return all, errors.Join(errs...)
}

func readFile(name string, stdin io.Reader) ([]byte, error) {
	if name == "-" {
		return io.ReadAll(stdin)
	}
	return os.ReadFile(name)
}

// table plans one table, and carries the plan out.
func (a *applier) table(ctx context.Context, t *table.GlobalTable, dryRun bool) (tableResult, error) {
	r := tableResult{Table: t.TableName, Result: unchanged, Changes: []string{}, Warnings: warnings(t)}
	p, err := a.open(ctx, t)
	if err != nil {
		return r, err
	}
	r.Region = p.home.region
	if p.now != nil && !dryRun {
		if err := p.settle(ctx); err != nil { // what another apply has begun
			return r, err
		}
	}
	steps, err := p.steps(ctx)
	if err != nil {
		return r, err
	}
	r.Warnings = append(r.Warnings, p.warnings...)
	var losses []string
	for _, s := range steps {
		r.Changes = append(r.Changes, s.what)
		if s.loses && !a.allowDelete {
			losses = append(losses, s.what)
		}
	}
	if dryRun && len(losses) > 0 {
		r.Warnings = append(r.Warnings, "apply would need --allow-delete to "+strings.Join(losses, ", "))
	}
	for _, w := range r.Warnings {
		fmt.Fprintf(a.progress, "warning: %s: %s\n", r.Table, w)
	}
	switch {
	case len(steps) == 0:
		return r, nil
	case dryRun:
		r.Result = planned
		return r, nil
	case len(losses) > 0:
		return r, fmt.Errorf("would %s: data would go; --allow-delete allows that", strings.Join(losses, ", "))
	}
	r.Result = updated
	if p.now == nil {
		r.Result = created
	}
	for _, s := range steps {
		fmt.Fprintf(a.progress, "%s: %s\n", t.TableName, s.what)
		if err := s.do(ctx); err != nil {
			return r, fmt.Errorf("%s: %w", s.what, plain(err))
		}
		if err := p.settle(ctx); err != nil {
			return r, fmt.Errorf("%s: %w", s.what, err)
		}
	}
	return r, nil
}

// warnings names what the file says and what has no effect.
func warnings(t *table.GlobalTable) []string {
	ignored := t.Ignored()
	if t.GlobalTableSourceArn != "" {
		ignored = append(ignored, "GlobalTableSourceArn")
	}
	if t.GlobalTableSettingsReplicationMode != "" {
		ignored = append(ignored, "GlobalTableSettingsReplicationMode")
	}
	var out []string
	if len(ignored) > 0 {
		out = append(out, "no effect yet: "+strings.Join(ignored, ", "))
	}
	for _, r := range t.Replicas {
		if r.TableClass != t.Replicas[0].TableClass {
			out = append(out, "Replicas.TableClass: all regions have that of the first replica")
			break
		}
	}
	return out
}

// plain takes what only programs want to know out of the SDK's error.
func plain(err error) error {
	var e interface {
		error
		ErrorCode() string
		ErrorMessage() string
	}
	if errors.As(err, &e) {
		return e
	}
	return err
}
