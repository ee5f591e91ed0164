package format

import "testing"

func TestOnlyWhatIsKnownIsRead(t *testing.T) {
	if Reads(Oldest-1) || !Reads(Oldest) || !Reads(Known) || Reads(Known+1) {
		t.Errorf("of %d to %d: %v %v %v %v", Oldest, Known, Reads(Oldest-1), Reads(Oldest), Reads(Known), Reads(Known+1))
	}
}
