package main

import (
	"os"
	"syscall"
	"testing"
)

func TestAHangupIsNoEnd(t *testing.T) {
	called := make(chan struct{}, 1)
	stop := onHangup(func() { called <- struct{}{} })
	self, err := os.FindProcess(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if err := self.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	<-called
	stop()
}
