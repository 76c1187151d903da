#!/usr/bin/env bash
# What does a request cost? evenkeel's proxy beside HAProxy and nginx, in one run on this machine.
#
# Each proxy has one worker, pinned to core 0; wrk and the upstream share core 1. All split 95/5 over two upstreams, keep
# connections on both sides, add X-Forwarded-For, -Proto and -Host, and write no access log. The figure to compare is
# CPU seconds per 100,000 requests, from /proc/PID/stat: unlike requests per second it hardly depends on the load side.
# Rounds are interleaved and begin with another proxy each, and a ratio is the median of the rounds' ratios: a machine
# that changes its speed from minute to minute (a guest beside others) then changes both sides of it. `foreign` is the
# share of a core that other programs took meanwhile. Many short rounds resolve more than a few long ones.
#
#   ROUNDS=3 SECONDS_EACH=6 CONNECTIONS="64 512" bench/proxy.sh
#   PROFILE=test-release bench/proxy.sh    # built in a fraction of the time, without optimisation across crates
set -euo pipefail
cd "$(dirname "$0")/.."

ROUNDS=${ROUNDS:-3}
SECONDS_EACH=${SECONDS_EACH:-6}
CONNECTIONS=${CONNECTIONS:-"64 512"}
PROFILE=${PROFILE:-release}
PORT=${PORT:-19100}

missing=()
for tool in haproxy nginx wrk; do
  PATH=$PATH:/usr/sbin command -v "$tool" >/dev/null || missing+=("$tool")
done
if ((${#missing[@]})); then
  echo "missing: ${missing[*]}. On Debian: apt-get install ${missing[*]}" >&2
  exit 2
fi
if (($(nproc) < 2)); then
  echo "two cores are needed: one for the proxy, one for the load" >&2
  exit 2
fi
export PATH=$PATH:/usr/sbin

echo "building…" >&2
cargo build --profile "$PROFILE" --quiet -p evenkeel-proxy --example standalone --example bench_upstream
binaries=${CARGO_TARGET_DIR:-target}/$PROFILE/examples

work=$(mktemp -d)
pids=()
finish() {
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  wait 2>/dev/null || true
  rm -rf "$work"
}
trap finish EXIT

stable=127.0.0.1:$((PORT + 1))
candidate=127.0.0.1:$((PORT + 2))
declare -A address=(
  [evenkeel]=127.0.0.1:$((PORT + 10))
  [haproxy]=127.0.0.1:$((PORT + 20))
  [nginx]=127.0.0.1:$((PORT + 30))
)
declare -A pid_of

cat >"$work/haproxy.cfg" <<EOF
global
    nbthread 1
    maxconn 4000
defaults
    mode http
    option forwardfor
    http-reuse always
    timeout connect 1s
    timeout client 75s
    timeout server 30s
    timeout http-request 10s
    timeout http-keep-alive 75s
frontend users
    bind ${address[haproxy]}
    http-request set-header X-Forwarded-Proto http
    http-request set-header X-Forwarded-Host %[req.hdr(host)]
    default_backend releases
backend releases
    balance roundrobin
    server stable $stable weight 95 pool-max-conn -1
    server candidate $candidate weight 5 pool-max-conn -1
EOF

cat >"$work/nginx.conf" <<EOF
daemon off;
master_process off;
worker_processes 1;
pid $work/nginx.pid;
error_log $work/nginx.log;
events { worker_connections 4000; }
http {
    access_log off;
    keepalive_requests 100000000;
    keepalive_timeout 75s;
    client_body_temp_path $work/body;
    proxy_temp_path $work/proxy;
    fastcgi_temp_path $work/fastcgi;
    uwsgi_temp_path $work/uwsgi;
    scgi_temp_path $work/scgi;
    upstream releases {
        server $stable weight=95;
        server $candidate weight=5;
        keepalive 1024;
        keepalive_requests 100000000;
    }
    server {
        listen ${address[nginx]};
        location / {
            proxy_pass http://releases;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host \$http_host;
            proxy_set_header X-Forwarded-For \$proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto http;
            proxy_set_header X-Forwarded-Host \$http_host;
        }
    }
}
EOF

start() { # name core command…
  local name=$1 core=$2
  shift 2
  taskset -c "$core" "$@" >"$work/$name.out" 2>&1 &
  pid_of[$name]=$!
  pids+=($!)
}

start upstream 1 "$binaries/bench_upstream" "$stable" "$candidate"
start evenkeel 0 "$binaries/standalone" "$work/state" "${address[evenkeel]}" 1 "$stable=9500" "$candidate=500"
start haproxy 0 haproxy -db -f "$work/haproxy.cfg"
start nginx 0 nginx -p "$work" -c "$work/nginx.conf"

answers() { # address
  (exec 3<>"/dev/tcp/${1%:*}/${1#*:}") 2>/dev/null
}
for name in "${!address[@]}"; do
  for _ in $(seq 100); do
    answers "${address[$name]}" && break
    sleep 0.1
  done
  answers "${address[$name]}" || { echo "$name did not start:" >&2; cat "$work/$name.out" >&2; exit 1; }
done

ticks_of() { # pid
  awk '{ sub(/.*\) /, ""); print $12 + $13 }' "/proc/$1/stat"
}
busy_ticks() {
  awk '/^cpu / { print $2 + $3 + $4 + $7 + $8; exit }' /proc/stat
}

# Leaves one line per run in $work/runs: connections, name, requests, cpu per 100k, requests/s, p50, p99, RSS, foreign.
run() { # name connections
  local name=$1 connections=$2 pid=${pid_of[$1]} url="http://${address[$1]}/path?query=1"
  taskset -c 1 wrk -t1 -c"$connections" -d1s "$url" >/dev/null
  local before upstream_before busy_before
  before=$(ticks_of "$pid") upstream_before=$(ticks_of "${pid_of[upstream]}") busy_before=$(busy_ticks)
  TIMEFORMAT='%U %S'
  local load
  load=$({ time taskset -c 1 wrk -t1 -c"$connections" -d"${SECONDS_EACH}s" --latency "$url" >"$work/wrk"; } 2>&1)
  local ticks=$(($(ticks_of "$pid") - before)) upstream=$(($(ticks_of "${pid_of[upstream]}") - upstream_before))
  local busy=$(($(busy_ticks) - busy_before)) rss
  rss=$(awk '/^VmRSS/ { print $2 / 1024 }' "/proc/$pid/status")
  if grep -qE 'Non-2xx|Socket errors' "$work/wrk"; then
    echo "$name with $connections connections: $(grep -E 'Non-2xx|Socket errors' "$work/wrk" | tr -s ' ')" >&2
  fi
  awk -v connections="$connections" -v name="$name" -v ticks="$ticks" -v others="$((busy - ticks - upstream))" \
    -v load="$load" -v seconds="$SECONDS_EACH" -v rss="$rss" -v hz="$(getconf CLK_TCK)" '
    function ms(text) { return text ~ /us$/ ? text / 1000 : text ~ /ms$/ ? text + 0 : text * 1000 }
    / 50%/ { p50 = ms($2) } / 99%/ { p99 = ms($2) }
    /requests in/ { requests = $1 } /^Requests\/sec/ { rate = $2 }
    END {
      split(load, wrk, " ")
      foreign = (others / hz - wrk[1] - wrk[2]) / seconds
      printf "%d %s %d %.4f %.0f %.3f %.3f %.1f %.2f\n", connections, name, requests, ticks / hz / requests * 100000,
        rate, p50, p99, rss, (foreign > 0 ? foreign : 0)
    }' "$work/wrk" | tee -a "$work/runs" >&2
}

echo "connections proxy requests cpu_s_per_100k requests_per_s p50_ms p99_ms rss_mib foreign_cores" >&2
names=(evenkeel haproxy nginx)
for round in $(seq "$ROUNDS"); do
  for connections in $CONNECTIONS; do
    for turn in 0 1 2; do run "${names[(round + turn) % 3]}" "$connections"; done
  done
done

median() {
  sort -g | awk '{ v[NR] = $1 } END { print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'
}
column_of() { # connections name column
  awk -v c="$1" -v n="$2" -v column="$3" '$1 == c && $2 == n { print $column }' "$work/runs" | median
}
ratio() { # connections name other: CPU per request, round by round
  awk -v c="$1" -v n="$2" -v o="$3" '
    $1 == c && $2 == n { own[++i] = $4 } $1 == c && $2 == o { other[++j] = $4 }
    END { for (k = 1; k <= i; k++) print own[k] / other[k] }' "$work/runs" | median | xargs printf "%.2f"
}

echo
echo "Medians of $ROUNDS interleaved rounds of $SECONDS_EACH s; $(haproxy -v | awk 'NR==1 {print "HAProxy " $3}'), $(nginx -v 2>&1 | awk '{print $3}')"
echo
{
  echo "connections proxy CPU-s/100k vs_haproxy vs_nginx requests/s p50_ms p99_ms RSS_MiB foreign"
  for connections in $CONNECTIONS; do
    for name in "${names[@]}"; do
      echo "$connections $name $(column_of "$connections" "$name" 4)" \
        "$(ratio "$connections" "$name" haproxy) $(ratio "$connections" "$name" nginx)" \
        "$(for column in 5 6 7 8 9; do column_of "$connections" "$name" $column; done | xargs)"
    done
  done
} | column -t
