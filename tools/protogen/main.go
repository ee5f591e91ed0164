// Protogen compiles every .proto file below a folder and writes the generated Go beside it. It takes the place of protoc, a C++
// program, so that `make proto` needs nothing but Go.
//
//	protogen [-plugins DIR] ROOT
//
// ROOT is the module's root: imports in .proto files are relative to it. The plugins protoc-gen-go and protoc-gen-go-grpc are
// taken from DIR, and files go where they would with paths=source_relative.
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/bufbuild/protocompile"
	"github.com/bufbuild/protocompile/linker"
	"github.com/bufbuild/protocompile/protoutil"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/pluginpb"
)

// plugins lists what is run over every file, in this order.
var plugins = []struct{ name, params string }{
	{"protoc-gen-go", "paths=source_relative"},
	{"protoc-gen-go-grpc", "paths=source_relative"},
}

func main() {
	dir := flag.String("plugins", ".cache/bin", "folder that holds the plugins")
	flag.Parse()
	if flag.NArg() != 1 {
		fmt.Fprintln(os.Stderr, "usage: protogen [-plugins DIR] ROOT")
		os.Exit(2)
	}
	if err := run(flag.Arg(0), *dir); err != nil {
		fmt.Fprintln(os.Stderr, "protogen:", err)
		os.Exit(1)
	}
}

func run(root, pluginDir string) error {
	names, err := protoFiles(root)
	if err != nil {
		return err
	}
	if len(names) == 0 {
		return fmt.Errorf("no .proto file below %s", filepath.Join(root, "proto"))
	}
	compiler := protocompile.Compiler{
		Resolver:       protocompile.WithStandardImports(&protocompile.SourceResolver{ImportPaths: []string{root}}),
		SourceInfoMode: protocompile.SourceInfoStandard,
	}
	files, err := compiler.Compile(context.Background(), names...)
	if err != nil {
		return err
	}
	req := &pluginpb.CodeGeneratorRequest{FileToGenerate: names}
	seen := make(map[string]bool)
	for _, f := range files {
		addWithImports(req, f, seen)
	}
	for _, p := range plugins {
		if err := generate(root, filepath.Join(pluginDir, p.name), p.params, req); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	fmt.Printf("protogen: %d files\n", len(names))
	return nil
}

// protoFiles returns the .proto files below root/proto, with slashes and relative to root, sorted.
func protoFiles(root string) ([]string, error) {
	var names []string
	err := filepath.WalkDir(filepath.Join(root, "proto"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".proto") {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		names = append(names, filepath.ToSlash(rel))
		return nil
	})
	slices.Sort(names)
	return names, err
}

// addWithImports appends f to req after everything it imports, as plugins require, and each file once.
func addWithImports(req *pluginpb.CodeGeneratorRequest, f linker.File, seen map[string]bool) {
	if seen[f.Path()] {
		return
	}
	seen[f.Path()] = true
	imports := f.Imports()
	for i := range imports.Len() {
		addWithImports(req, f.FindImportByPath(imports.Get(i).Path()), seen)
	}
	req.ProtoFile = append(req.ProtoFile, protoutil.ProtoFromFileDescriptor(f))
}

// generate hands req to one plugin and writes the files it answers.
func generate(root, plugin, params string, req *pluginpb.CodeGeneratorRequest) error {
	req.Parameter = proto.String(params)
	in, err := proto.Marshal(req)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	cmd := exec.Command(plugin)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(in), &out, os.Stderr
	if err := cmd.Run(); err != nil {
		return err
	}
	var resp pluginpb.CodeGeneratorResponse
	if err := proto.Unmarshal(out.Bytes(), &resp); err != nil {
		return err
	}
	if resp.Error != nil {
		return fmt.Errorf("%s", resp.GetError())
	}
	for _, f := range resp.File {
		path := filepath.Join(root, filepath.FromSlash(f.GetName()))
		if err := os.WriteFile(path, []byte(f.GetContent()), 0o644); err != nil {
			return err
		}
	}
	return nil
}
