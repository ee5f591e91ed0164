#!/usr/bin/env bash
# Sees to a Docker engine for `make up` and `make drill`.
#
#   engine.sh check   exits 0 when an engine and a compose command answer; else says what to do
#   engine.sh start   installs (Debian and its kin, as root) and starts an engine where none answers; leaves one that does alone
#   engine.sh stop    ends the engine that `start` started, and no other
#
# An engine that `start` starts is a plain dockerd, without systemd: its process id and log are in $ENGINE_DIR.
set -euo pipefail

ENGINE_DIR=${ENGINE_DIR:-/run/commutator-engine}
pidfile=$ENGINE_DIR/dockerd.pid
log=$ENGINE_DIR/dockerd.log

say() { echo "engine: $*" >&2; }

answers() { command -v docker >/dev/null && docker info >/dev/null 2>&1; }

compose_answers() { docker compose version >/dev/null 2>&1 || docker-compose version >/dev/null 2>&1; }

# runs PIDFILE NAME: the process that PIDFILE names lives and is called NAME. A pid file may outlive its process, the number may by
# then be another's, and a killed process stays as a zombie until its parent asks for it.
runs() {
	local pid name state _
	pid=$(cat "$1" 2>/dev/null) && [ -n "$pid" ] || return 1
	[ -r "/proc/$pid/stat" ] && read -r _ name state _ <"/proc/$pid/stat" || return 1
	[ "$name" = "($2)" ] && [ "$state" != Z ]
}

check() {
	if ! answers; then
		say "no Docker engine answers. Start yours, or, as root on Debian: deploy/engine.sh start"
		return 1
	fi
	if ! compose_answers; then
		say "neither 'docker compose' nor docker-compose is here. On Debian: apt-get install docker-compose"
		return 1
	fi
}

has_package() { apt-cache show "$1" >/dev/null 2>&1; }

# install_missing installs what start needs and is not there.
install_missing() {
	local want=()
	if ! answers && ! command -v dockerd >/dev/null; then
		want+=(docker.io iptables ca-certificates)
		if [ "$(cat /sys/module/apparmor/parameters/enabled 2>/dev/null)" = Y ]; then want+=(apparmor); fi
		if ! grep -q ' /sys/fs/cgroup' /proc/mounts; then want+=(cgroupfs-mount); fi
	fi
	command -v docker >/dev/null || want+=(docker-cli)
	compose_answers || want+=(docker-compose)
	[ ${#want[@]} -gt 0 ] || return 0
	if ! command -v apt-get >/dev/null; then
		say "cannot install ${want[*]} without apt-get: install Docker as https://docs.docker.com/engine/install says"
		return 1
	fi
	if [ "$(id -u)" != 0 ]; then
		say "not root: run as root, or install ${want[*]} yourself"
		return 1
	fi
	apt-get update -qq
	# Before Debian 13 the client comes with docker.io, and there is no package docker-cli.
	local have=()
	for p in "${want[@]}"; do has_package "$p" && have+=("$p"); done
	say "installing ${have[*]}"
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${have[@]}" >"$ENGINE_DIR/apt.log" 2>&1 </dev/null ||
		{ tail -n 20 "$ENGINE_DIR/apt.log" >&2; return 1; }
}

# launch STEPS...: starts dockerd once and waits until it answers or is dead, a minute at most. The step "legacy" lets it use the older
# iptables, by a link that only it sees; every other step is an argument for it.
launch() {
	local path=$PATH args=()
	for step in "$@"; do
		if [ "$step" = legacy ]; then
			[ -x /usr/sbin/iptables-legacy ] || return 1
			mkdir -p "$ENGINE_DIR/bin"
			ln -sf /usr/sbin/iptables-legacy "$ENGINE_DIR/bin/iptables"
			ln -sf /usr/sbin/ip6tables-legacy "$ENGINE_DIR/bin/ip6tables"
			path=$ENGINE_DIR/bin:$PATH
		else
			args+=("$step")
		fi
	done
	# What an engine that was killed left behind keeps the next one from starting.
	runs "$pidfile" dockerd || rm -f "$pidfile"
	runs /var/run/docker/containerd/containerd.pid containerd || rm -f /var/run/docker/containerd/containerd.pid

	say "starting dockerd ${*}"
	PATH=$path setsid dockerd --pidfile "$pidfile" ${args[@]+"${args[@]}"} >>"$log" 2>&1 </dev/null &
	local child=$!
	for _ in $(seq 240); do
		answers && return 0
		kill -0 "$child" 2>/dev/null || return 1
		sleep 0.25
	done
	say "dockerd does not answer after a minute; ending it"
	kill "$child" 2>/dev/null || true
	wait "$child" 2>/dev/null || true
	return 1
}

start() {
	if answers && compose_answers; then
		say "an engine answers: $(docker info --format 'Docker {{.ServerVersion}}, {{.Driver}}' 2>/dev/null); left alone"
		return 0
	fi
	mkdir -p "$ENGINE_DIR"
	install_missing
	if ! answers; then # installing may have started one
		: >"$log"
		launch || launch legacy || launch --storage-driver=vfs || launch legacy --storage-driver=vfs || {
			say "no dockerd came up; the end of $log:"
			tail -n 30 "$log" >&2
			return 1
		}
		say "runs: $(docker info --format 'Docker {{.ServerVersion}}, {{.Driver}}' 2>/dev/null), pid $(cat "$pidfile"), log $log"
	fi
	check
}

stop() {
	if ! runs "$pidfile" dockerd; then
		say "none that was started here"
		rm -f "$pidfile"
		return 0
	fi
	local pid
	pid=$(cat "$pidfile")
	say "stopping dockerd, pid $pid"
	kill "$pid"
	for _ in $(seq 120); do
		runs "$pidfile" dockerd || { rm -f "$pidfile"; return 0; }
		sleep 0.25
	done
	say "dockerd, pid $pid, still runs after 30 s"
	return 1
}

case ${1:-} in
check | start | stop) "$1" ;;
*)
	sed -n '2,8s/^# \{0,1\}//p' "$0" >&2
	exit 2
	;;
esac
