#!/usr/bin/env bash
# Waits until every container of docker-compose.yml is healthy, 90 seconds at most, and says where the regions answer. A container that
# does not get there has its last lines shown, and the exit code is 1.
set -euo pipefail

deadline=$((SECONDS + 90))
for name in minio us-east-1 eu-west-1 ap-northeast-1; do
	container=commutator-$name
	while :; do
		state=$(docker inspect --format '{{.State.Status}} {{.State.Health.Status}}' "$container")
		[ "$state" = "running healthy" ] && break
		if [ "${state%% *}" = exited ] || [ "${state%% *}" = dead ] || [ $SECONDS -ge $deadline ]; then
			echo "ready: $container is $state; its last lines:" >&2
			docker logs --tail 40 "$container" >&2
			exit 1
		fi
		sleep 0.25
	done
done
echo "us-east-1       http://127.0.0.1:8000   operators http://127.0.0.1:9000"
echo "eu-west-1       http://127.0.0.1:8001   operators http://127.0.0.1:9001"
echo "ap-northeast-1  http://127.0.0.1:8002   operators http://127.0.0.1:9002"
