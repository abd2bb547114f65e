package main

import (
	"context"
	"os"
	"sync"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/exporter"
	"go.opentelemetry.io/collector/exporter/exporterhelper"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/ptrace"
)

type config struct {
	Path string `mapstructure:"path"`
}

// A file of lines, each the OTLP/JSON of a request.
type file struct {
	mutex sync.Mutex
	file  *os.File
}

func newFileFactory() exporter.Factory {
	return exporter.NewFactory(
		component.MustNewType("file"),
		func() component.Config { return &config{} },
		exporter.WithLogs(newLogs, component.StabilityLevelDevelopment),
		exporter.WithTraces(newTraces, component.StabilityLevelDevelopment),
	)
}

func open(c component.Config) (*file, error) {
	opened, err := os.OpenFile(c.(*config).Path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	return &file{file: opened}, err
}

func (f *file) write(line []byte, err error) error {
	if err != nil {
		return err
	}
	f.mutex.Lock()
	defer f.mutex.Unlock()
	_, err = f.file.Write(append(line, '\n'))
	return err
}

func (f *file) close(context.Context) error {
	return f.file.Close()
}

func newLogs(ctx context.Context, set exporter.Settings, c component.Config) (exporter.Logs, error) {
	f, err := open(c)
	if err != nil {
		return nil, err
	}
	marshal := plog.JSONMarshaler{}
	push := func(_ context.Context, logs plog.Logs) error { return f.write(marshal.MarshalLogs(logs)) }
	return exporterhelper.NewLogs(ctx, set, c, push, exporterhelper.WithShutdown(f.close))
}

func newTraces(ctx context.Context, set exporter.Settings, c component.Config) (exporter.Traces, error) {
	f, err := open(c)
	if err != nil {
		return nil, err
	}
	marshal := ptrace.JSONMarshaler{}
	push := func(_ context.Context, traces ptrace.Traces) error { return f.write(marshal.MarshalTraces(traces)) }
	return exporterhelper.NewTraces(ctx, set, c, push, exporterhelper.WithShutdown(f.close))
}
