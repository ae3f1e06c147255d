#!/bin/sh
# Written by provision-region. The key and the certificate of the node on this server, and the next ones before they end. The
# others trust the next certificate for a month before it is shown. What ends in _so is a question that changes nothing.
#
#   certificate VERB [NODE]
set -u
export LC_ALL=C
cd / || exit 1
settings=/etc/regionwise/postgres
node=${2:-}
days=86400
# How long one is good, how many days before its end the next one is made, and how old that is when it takes over.
good=3650
early=90
known=30

# What lies at that name: KEY is its private half.
in_use=$settings/server
next=$settings/next

die() {
  echo "$1"
  exit 1
}

lasts() {
  openssl x509 -noout -checkend $(($2 * days)) -in "$1.crt" > /dev/null 2>&1
}

# pair KEY CERTIFICATE
pair() {
  [ -s "$1" ] && [ -s "$2" ] && [ "$(openssl x509 -noout -pubkey -in "$2")" = "$(openssl pkey -pubout -in "$1")" ]
}

sound() {
  pair "$1.key" "$1.crt" || return 1
  [ "$(openssl x509 -noout -subject -nameopt multiline -in "$1.crt" | sed -n 's/ *commonName *= //p')" = "$node" ] \
    && [ "$(stat -c '%U' "$1.key")" = root ] && [ $((0$(stat -c '%a' "$1.key") & 037)) = 0 ]
}

# A client that checks the password against the certificate (SCRAM with channel binding) cannot use ed25519. OpenSSL takes the
# first one of a name that is trusted for the only one: no two of a node have one name.
make() {
  name=/CN=$node/serialNumber=$(openssl rand -hex 8) || exit 1
  (umask 077 && openssl req -x509 -config "$settings/certificate.conf" -subj "$name" -newkey ec -pkeyopt ec_paramgen_curve:P-256 \
    -nodes -sha256 -days "$good" -keyout "$1.key.new" -out "$1.crt.new") \
    && chmod 644 "$1.crt.new" || exit 1
  # One that runs already must read it also when this run goes no further.
  ! getent group postgres > /dev/null || readable "$1.key.new" || exit 1
  mv "$1.key.new" "$1.key" && mv "$1.crt.new" "$1.crt" && sync
}

readable() {
  chown root:postgres "$1" && chmod 640 "$1"
}

# One that has ended is accepted by nobody.
own_so() {
  sound "$in_use" && lasts "$in_use" 0
}

own() {
  # The take-over was cut off between its two files.
  ! pair "$in_use.key" "$next.crt" || mv "$next.crt" "$in_use.crt" || exit 1
  # It has ended before the next one could take over: whoever was told of that trusts it.
  ! sound "$in_use" || lasts "$in_use" 0 || ! sound "$next" || ! lasts "$next" 0 || take
  rm -f "$next.key" "$next.crt"
  own_so || make "$in_use"
}

next_so() {
  lasts "$in_use" "$early" || { sound "$next" && lasts "$next" "$early"; }
}

make_next() {
  make "$next"
}

is_next() {
  sound "$next" && ! lasts "$in_use" "$early"
}

ripe() {
  is_next || return 1
  made=$(date -d "$(openssl x509 -noout -startdate -in "$next.crt" | cut -d = -f 2)" +%s) || return 1
  [ $(($(date +%s) - made)) -ge $((known * days)) ]
}

# Whether the next one is to take over, once all others have it.
renewal() {
  if ripe; then echo due; else echo none; fi
}

taken_so() {
  ! ripe
}

take() {
  readable "$next.key" || exit 1
  mv "$next.key" "$in_use.key" && mv "$next.crt" "$in_use.crt" && sync
}

der() {
  openssl x509 -in "$1.crt" -outform DER | base64 -w 0
}

# The certificates that the others are to trust, with a space between.
trusted() {
  mine=$(der "$in_use") && [ -n "$mine" ] || die "cannot read $in_use.crt"
  if is_next; then
    other=$(der "$next") && [ -n "$other" ] || die "cannot read $next.crt"
    mine="$mine $other"
  fi
  echo "$mine"
}

fingerprint() {
  openssl x509 -noout -fingerprint -sha256
}

# Whether Postgres shows the certificate that lies here.
shown_so() {
  shown=$(timeout 20 openssl s_client -starttls postgres -connect 127.0.0.1:5432 < /dev/null 2> /dev/null | fingerprint 2> /dev/null)
  [ -n "$shown" ] && [ "$shown" = "$(fingerprint < "$in_use.crt")" ]
}

# After a reload, which takes a moment.
show() {
  for _ in 1 2 3 4 5 6 7 8 9 10; do
    ! shown_so || return 0
    sleep 1
  done
  die 'Postgres shows another certificate than that of this node, or none: its log says why it does not read it'
}

notes() {
  ! is_next || echo "the certificate of this node ends on $(openssl x509 -noout -enddate -in "$in_use.crt" | cut -d = -f 2); the next one is told to the others, and takes over in a run of this node's region, $known days after it was made or later"
}

case ${1:-} in
  own_so | own | next_so | make_next | renewal | taken_so | take | trusted | shown_so | show | notes) "$1" ;;
  *)
    echo 'certificate: no such verb' >&2
    exit 2
    ;;
esac
