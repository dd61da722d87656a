# A client of umbel.v1 and umbel.v1.bin, whose subscriptions and publishes outlive a connection that breaks.
package Umbel::Client;
use v5.36;
use JSON::PP;
use List::Util qw(max min);
use MIME::Base64 qw(decode_base64 encode_base64);
use POSIX qw(ceil);
use Time::HiRes qw(sleep time);
use Umbel::Compact;
use Umbel::WebSocket;

use constant { ANSWER_SECONDS_MAX => 20, COMMANDS_PER_MESSAGE => 500, STEADY_SECONDS => 5, LATER_FAILURES => 2 };
my %IS_FINAL = map { $_ => 1 } 1000, 1002, 1003, 1005, 1007 .. 1009, 4000 .. 4428, 4430 .. 4999, 400 .. 428, 430 .. 499;
my %IS_LATER = map { $_ => 1 } 1011, 1013, 4429, 429, 500 .. 599;
my $JSON = JSON::PP->new->canonical->allow_nonref;
my %TAKE = (
    publication => \&_take_publication, gap => \&_take_gap, subscribed => \&_take_subscribed,
    unsubscribed => \&_take_unsubscribed, error => \&_take_error,
    (map { $_ => \&_settle } qw(published pong presence history)),
    (map { $_ => \&_event } qw(join leave presence_skipped)),
);

# `host` and `port` of the server; `framing` (umbel.v1 or umbel.v1.bin), `token` and `info` as the page has them;
# `backoff` bounds the wait before it connects again, in seconds.
sub new ($class, %of) {
    return bless {
        framing => 'umbel.v1', backoff => [1, 30], %of, last_id => 0, failures => 0, not_before => 0,
        subscriptions => {}, by_name => {}, unsettled => {}, answers => {}, events => [],
    }, $class;
}

# Subscribes to a `topic` or a `pattern`; `since`, `last` and `echo` are the page's. Returns the answer.
sub subscribe ($self, %what) {
    my $id = ++$self->{last_id};
    $self->{subscriptions}{$id} = { %what, position => $what{since} };
    $self->_write({ type => 'subscribe', id => $id, %what });
    return $self->answer($id);
}

sub unsubscribe ($self, $kind, $name) {
    my $subscriptions = $self->{subscriptions};
    delete @$subscriptions{ grep { ($subscriptions->{$_}{$kind} // '') eq $name } keys %$subscriptions };
    return $self->ask(type => 'unsubscribe', $kind => $name);
}

# Publishes `data` (text), `bytes` or a JSON `value` to a `topic`, with other fields as the page has them. Returns the id
# by which `answer` tells what became of it. It is sent again, with its idempotency key, until that is known.
sub publish ($self, %what) {
    $what{idempotency_key} //= unpack 'H*', Umbel::WebSocket::random_bytes(16);
    return $self->_command({ type => 'publish', %what });
}

# The publications of a history, by its pages; `since`, `last` and `limit` are the page's.
sub history ($self, %what) {
    my $page = $self->ask(type => 'history', %what);
    my @publications = map { _decoded($_) } @{ $page->{publications} };
    return @publications if !defined $page->{next};
    delete $what{last};
    return @publications, $self->history(%what, since => $page->{next});
}

# Sends a command and returns its answer.
sub ask ($self, %command) { $self->answer($self->_command(\%command)) }

# Waits for an answer. Dies with an error, with the end of the client or with a timeout: hashes with a `code`.
sub answer ($self, $id) {
    my $deadline = time + ANSWER_SECONDS_MAX;
    until ($self->{answers}{$id}) {
        die $self->{stopped} if $self->{stopped};
        die { code => 'timeout', reason => "no answer to $id" } if time > $deadline;
        $self->_step(max(0, $deadline - time));
    }
    my $answer = delete $self->{answers}{$id};
    die $answer if $answer->{type} eq 'error';
    return $answer;
}

# The next event, or nothing within the time: what the server sent unasked; `lost`, where a subscription could not
# recover; or `stopped`, when no further connection is made.
sub next_event ($self, $seconds) {
    my $deadline = time + $seconds;
    until (@{ $self->{events} }) {
        return $self->{stopped} if $self->{stopped} || time > $deadline;
        $self->_step(max(0, $deadline - time));
    }
    return shift @{ $self->{events} };
}

sub finish ($self) {
    $self->{socket}->finish(1000) if $self->{socket};
    $self->_stop(1000, 'finished');
}

# Breaks the connection.
sub cut ($self) { $self->{socket}->cut if $self->{socket} }

sub _command ($self, $command) {
    $command->{id} = ++$self->{last_id};
    $self->{unsettled}{ $command->{id} } = { command => $command };
    $self->_write($command);
    return $command->{id};
}

# Writes commands, as one message but for what is binary. All that has no answer is written once there is a connection.
sub _write ($self, @commands) {
    my $socket = $self->{socket};
    return time >= $self->{not_before} && $self->_connect if !$socket;
    my @texts;
    for my $command (@commands) {
        my %said = %$command;
        if (my $unsettled = $self->{unsettled}{ $said{id} }) {
            my $ago = $self->{opened} - ($unsettled->{first_sent} // time);
            $said{first_sent_ms} = ceil(1000 * $ago) if defined $said{idempotency_key} && $ago > 0;
            $unsettled->{first_sent} //= time;
        }
        if ($self->{framing} eq 'umbel.v1.bin' && $said{type} eq 'publish') {
            $said{content_type} //= 'application/json' if exists $said{value};
            $said{data} = $JSON->encode($said{value}) if exists $said{value};
            $socket->send_binary(Umbel::Compact::publish(\%said));
        } else {
            $said{base64} = encode_base64(delete $said{bytes}, '') if defined $said{bytes};
            $said{data} = delete $said{value} if exists $said{value};
            push @texts, \%said;
        }
    }
    while (my @message = splice @texts, 0, COMMANDS_PER_MESSAGE) {
        $socket->send_text($JSON->encode(@message == 1 ? $message[0] : \@message));
    }
}

# Connects, subscribes anew and sends again what has no answer.
sub _connect ($self) {
    my @headers = defined $self->{token} ? "Authorization: Bearer $self->{token}" : ();
    my $info = defined $self->{info} ? '?info=' . _percent($JSON->encode($self->{info})) : '';
    my %to = (host => $self->{host}, port => $self->{port}, path => "/ws$info", headers => \@headers);
    $self->{socket} = eval { Umbel::WebSocket->new(%to, protocol => $self->{framing}) };
    if (!$self->{socket}) {
        my $refusal = ref $@ ? $@ : die $@;
        return $self->_ended($refusal->{status} // 1006, $refusal->{reason});
    }
    $self->{opened} = time;
    $self->{by_name} = {};
    my ($subscriptions, $unsettled) = @$self{qw(subscriptions unsettled)};
    $self->_write(
        (map { _subscribe_command($_, %{ $subscriptions->{$_} }) } sort { $a <=> $b } keys %$subscriptions),
        (map { $unsettled->{$_}{command} } sort { $a <=> $b } keys %$unsettled),
    );
}

sub _percent ($text) {
    utf8::encode($text);
    return $text =~ s/([^A-Za-z0-9_.~-])/sprintf '%%%02X', ord $1/ger;
}

sub _subscribe_command ($id, %it) {
    delete $it{last} if defined $it{position};
    my %said = (%it, since => $it{position});
    return { type => 'subscribe', id => $id, map { defined $said{$_} ? ($_, $said{$_}) : () } qw(topic pattern since last echo) };
}

# Takes one message, or waits for it, or for the time to connect.
sub _step ($self, $seconds) {
    if (!$self->{socket}) {
        my $wait = $self->{not_before} - time;
        return $wait > 0 ? sleep min($wait, $seconds) : $self->_connect;
    }
    my $message = $self->{socket}->receive($seconds) // return;
    return $self->_ended(@$message{qw(code reason)}) if $message->{code};
    my $said = defined $message->{text} ? $JSON->decode($message->{text}) : Umbel::Compact::publication($message->{binary});
    my $take = $said && $TAKE{ $said->{type} };
    $self->$take($said) if $take;
}

sub _ended ($self, $code, $reason) {
    my ($retry) = $reason =~ /retry=(\d+)/;
    return $self->_stop($code, $reason) if $IS_FINAL{$code} && !defined $retry;
    $self->{failures} = 0 if $self->{socket} && time - $self->{opened} >= STEADY_SECONDS;
    $self->{failures} = max($self->{failures}, LATER_FAILURES) if $IS_LATER{$code};
    $self->{socket} = undef;
    my ($first, $longest) = @{ $self->{backoff} };
    $self->{not_before} = time + max($retry // 0, rand min($longest, $first * 2**$self->{failures}++));
}

sub _stop ($self, $code, $reason) {
    $self->{socket} = undef;
    $self->{stopped} = { type => 'stopped', code => $code, reason => $reason };
}

sub _event ($self, $event) { push @{ $self->{events} }, $event }

sub _settle ($self, $said) {
    delete $self->{unsettled}{ $said->{id} };
    $self->{answers}{ $said->{id} } = $said;
}

# A subscription that is made anew has had its answer: what becomes of it is an event.
sub _take_error ($self, $said) {
    my $subscription = delete $self->{subscriptions}{ $said->{id} // '' };
    return $self->_event($said) if !defined $said->{id} || $subscription && $subscription->{is_answered};
    $self->_settle($said);
}

sub _take_subscribed ($self, $said) {
    my $subscription = $self->{subscriptions}{ $said->{id} } // return;
    my $is_anew = $subscription->{is_answered}++;
    $self->_settle($said) if !$is_anew;
    return if defined $said->{pattern};
    $self->{by_name}{ $said->{topic} } = $subscription;
    $subscription->{may_leap} = defined $said->{slow_consumer} || exists $said->{echo};
    # Of what is behind this message nothing has come yet.
    return if $said->{recovered} || defined $subscription->{last} && !defined $subscription->{position};
    $self->_event({ type => 'lost', topic => $said->{topic}, position => $said->{position} }) if $is_anew;
    $subscription->{position} = $said->{position};
}

# Unasked, it says that the right to a subscription is gone; the next connection hears the same as an error.
sub _take_unsubscribed ($self, $said) { defined $said->{id} ? $self->_settle($said) : $self->_event($said) }

sub _take_gap ($self, $said) {
    my $subscription = defined $said->{pattern} ? undef : $self->{by_name}{ $said->{topic} };
    $subscription->{position} = $said->{to} if $subscription;
    $self->_event($said);
}

sub _take_publication ($self, $said) {
    my $subscription = defined $said->{pattern} ? undef : $self->{by_name}{ $said->{topic} };
    my $position = $subscription && $subscription->{position};
    # A leap is a fault: the next connection subscribes from the last position.
    return $self->cut if defined $position && !$subscription->{may_leap} && $said->{position} ne _behind($position);
    $subscription->{position} = $said->{position} if $subscription;
    $self->_event(_decoded($said));
}

sub _behind ($position) {
    my ($epoch, $offset) = split /:/, $position;
    return "$epoch:" . ($offset + 1);
}

# A publication with its `bytes`, or with the `value` of its JSON.
sub _decoded ($said) {
    $said->{bytes} = decode_base64(delete $said->{base64}) if defined $said->{base64};
    my $type = ($said->{content_type} // '') =~ s/\s*;.*//sr;
    $said->{value} = eval { $JSON->decode($said->{data}) }
        if defined $said->{data} && $type =~ m{\Aapplication/json\z|\+json\z}i;
    return $said;
}

1;
