package api

import (
	"strings"
	"testing"
)

func TestAPolicyIsKeptInOneForm(t *testing.T) {
	const want = `{"Version":"2012-10-17","Id":"i","Statement":[{"Sid":"s","Effect":"Deny","Principal":{"AWS":["arn:aws:iam::111111111111:root","arn:aws:iam::222222222222:user/u"]},"NotAction":"dynamodb:*","Resource":["b","a"],"Condition":{"Bool":{"aws:SecureTransport":"true"}}}]}`
	for _, document := range []string{
		want,
		` {"Statement" : {"Condition":{"Bool":{"aws:SecureTransport":[true]}},"Resource":["b","a"],"NotAction":["dynamodb:*"],"Principal":{"AWS":["111111111111","arn:aws:iam::222222222222:user/u","arn:aws:iam::111111111111:root"]},"Effect":"deny","Sid":"\u0073"},"Id":"i","Version":"2012-10-17"}`,
	} {
		p, err := readPolicy(document, false)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := p.canonical(); err != nil || got != want || shownPolicy(got) != want {
			t.Errorf("%s:\ngot  %s, %v\nwant %s", document, got, err, want)
		}
	}
}

func TestAPolicyHasAtMost20KiB(t *testing.T) {
	document := `{"Statement":{"Effect":"Deny","Principal":"*","Action":"dynamodb:GetItem","Resource":"*"}}`
	document += strings.Repeat(" ", maxPolicy-len(document))
	if _, err := readPolicy(document, false); err != nil {
		t.Error(err)
	}
	if _, err := readPolicy(document+" ", false); err == nil || !strings.Contains(err.Error(), "Maximum policy size of 20480 bytes exceeded") {
		t.Errorf("one byte more: %v", err)
	}
}

func TestAPolicyThatLocksOutIsKnown(t *testing.T) {
	for statement, want := range map[string]bool{
		`"Effect":"Deny","Principal":"*","Action":"dynamodb:PutResourcePolicy"`:                                  true,
		`"Effect":"Deny","Principal":{"AWS":"*"},"Action":["dynamodb:GetItem","dynamodb:*Policy"]`:               true,
		`"Effect":"Deny","Principal":{"AWS":"000000000000"},"Action":"*"`:                                        true,
		`"Effect":"Deny","Principal":{"AWS":"111111111111"},"Action":"*"`:                                        false,
		`"Effect":"Deny","Principal":"*","Action":"dynamodb:DeleteResourcePolicy"`:                               false,
		`"Effect":"Allow","Principal":{"AWS":"000000000000"},"Action":"*"`:                                       false,
		`"Effect":"Deny","Principal":"*","Action":"*","Condition":{"StringEquals":{"aws:PrincipalAccount":"1"}}`: false,
	} {
		p, err := readPolicy(`{"Statement":{`+statement+`,"Resource":"*"}}`, false)
		if err != nil {
			t.Fatal(err)
		}
		if got := p.locksOut("000000000000"); got != want {
			t.Errorf("%s: %v, want %v", statement, got, want)
		}
	}
}

func TestPatternsOfActions(t *testing.T) {
	for pattern, want := range map[string]bool{"*": true, "": false, "a?c*": true, "a*d": true, "a*c": false, "*b*d": true, "abcd": true, "abcde": false, "?bcd?": false, "**d**": true} {
		if got := matches(pattern, "abcd"); got != want {
			t.Errorf("%q: %v, want %v", pattern, got, want)
		}
	}
}

func TestActionsOfTablesAndOfStreams(t *testing.T) {
	for action, want := range map[string][2]bool{
		"dynamodb:GetItem": {true, false}, "dynamodb:getrecords": {false, true}, "dynamodb:*": {true, true}, "*": {true, true},
		"dynamodb:PutResourcePolicy": {true, true}, "s3:GetObject": {}, "GetItem": {}, "dynamodb:": {},
	} {
		if got := [2]bool{actionFits(action, false), actionFits(action, true)}; got != want {
			t.Errorf("%s: %v, want %v", action, got, want)
		}
	}
}
