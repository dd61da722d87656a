#!/usr/bin/env perl
# A client of umbel.v1 that has nothing but its page, in both framings, against a server of its own. Run by
# tests/clients/run; closes with `N passed, N failed`.
use v5.36;
use utf8;
use FindBin;
use lib "$FindBin::Bin/perl";
use JSON::PP;
use POSIX qw(WUNTRACED);
use Time::HiRes qw(sleep time);
use Umbel::Client;

my $JSON = JSON::PP->new->canonical->allow_nonref->utf8;
my $BINARY = $ENV{UMBEL_BIN} // "$FindBin::Bin/../../target/release/umbel";
my $SECONDS_MAX = 20;
my @RULES = ('kept/** history=1000', 'present/** presence=on time=on', 'slow/** slow_consumer=drop-oldest');
my @SETTINGS = ((map { ('--topic-rule', $_) } @RULES), qw(--outbox-bytes-max 100000 --publication-bytes-max 50000));
my ($pid, $log, $port, $framing, $topics) = (undef, undef, 0, undef, 0);

# Starts the server, again at the port that it had.
sub start () {
    $pid = open($log, '-|') // die "fork: $!\n";
    if (!$pid) {
        open STDERR, '>&', \*STDOUT;
        delete @ENV{ grep { /^UMBEL_/ } keys %ENV };
        exec $BINARY, 'serve', '--listen', "127.0.0.1:$port", @SETTINGS or die "$BINARY: $!\n";
    }
    while (my $line = readline $log) {
        return $port = $1 if $line =~ /listening on http:\S+:(\d+)/;
    }
    die "the server ended\n";
}

sub stop () {
    local $?;
    kill KILL => $pid;
    close $log;
}

END { stop() if $pid }

sub topic ($room = 'kept') { $room . '/' . ++$topics }

sub client (%of) { Umbel::Client->new(host => '127.0.0.1', port => $port, framing => $framing, backoff => [0.01, 0.05], %of) }

sub published ($client, $topic, %what) { $client->answer($client->publish(topic => $topic, %what)) }

sub publish_range ($client, $topic, $first, $last) {
    my @ids = map { $client->publish(topic => $topic, data => "$_") } $first .. $last;
    return map { $client->answer($_)->{position} } @ids;
}

# What came up to the event whose `data` or `type` is this.
sub events_until ($client, $last) {
    my @events;
    while (my $event = $client->next_event($SECONDS_MAX)) {
        push @events, $event;
        return @events if $last eq ($event->{data} // $event->{type});
    }
    die "$last did not come\n";
}

sub data_until ($client, $last) { map { $_->{data} // $_->{type} } events_until($client, $last) }

sub offset ($position) { $position =~ s/.*://r }

sub error_of ($run) { eval { $run->(); 1 } ? 'none' : ref $@ ? $@->{code} : die $@ }

# Compares as JSON, with numbers as they are written.
sub equal ($got, $expected) {
    my ($is, $should) = map { $JSON->encode($_) =~ s/"(\d+)"/$1/gr } $got, $expected;
    die "got $is\n  | expected $should\n" if $is ne $should;
}

my %tests = (
    fields_of_a_publication => sub {
        my ($topic, $client) = (topic(), client());
        $client->subscribe(topic => "$topic?b=2&a=1");
        my %fields = (key => 'EUR', event => 'preis€', message_id => '7', tags => { region => 'eu', a => 'ä' });
        my @sent = ({ %fields, content_type => 'text/csv', data => 'a;ä' }, { value => { price => 3 } }, { bytes => "\0\xff" });
        my @answers = map { published($client, "$topic?b=2&a=1", %$_, receipt => JSON::PP::true) } @sent;
        equal([map { $_->{receipt}{matched} } @answers], [1, 1, 1]);
        @{ $sent[1] }{qw(content_type data)} = ('application/json', '{"price":3}');
        my @expected = map { +{ %$_, type => 'publication', topic => "$topic?a=1&b=2" } } @sent;
        $expected[$_]{position} = $answers[$_]{position} for 0 .. 2;
        equal([map { $client->next_event($SECONDS_MAX) } 0 .. 2], \@expected);
    },
    json_by_its_content_type => sub {
        my ($topic, $client) = (topic(), client());
        $client->subscribe(topic => $topic);
        my @types = ('application/vnd.api+json; charset=utf-8', 'Application/JSON ;x=1', 'application/json-seq', 'text/x');
        published($client, $topic, content_type => $_, data => '[1]') for @types;
        equal([map { exists $client->next_event($SECONDS_MAX)->{value} ? 1 : 0 } @types], [1, 1, 0, 0]);
    },
    patterns_beside_topics => sub {
        my ($topic, $client) = (topic(), client());
        $client->subscribe(pattern => "$topic/*");
        $client->subscribe(topic => "$topic/a");
        publish_range($client, "$topic/a", 1, 1);
        equal([sort map { $client->next_event($SECONDS_MAX)->{pattern} // '' } 1, 2], ['', "$topic/*"]);
        $client->unsubscribe(topic => "$topic/a");
        publish_range($client, "$topic/a", 2, 3);
        equal([data_until($client, 3)], [2, 3]);
    },
    subscriptions_without_echo => sub {
        my ($topic, $client, $other) = (topic(), client(), client());
        $client->subscribe(topic => $topic, echo => JSON::PP::false);
        publish_range($client, $topic, 1, 2);
        publish_range($other, $topic, 3, 3);
        equal([data_until($client, 3)], [3]);
        publish_range($client, $topic, 4, 4);
        $client->cut;
        equal([data_until($client, 4)], [4]);
        publish_range($client, $topic, 5, 5);
        publish_range($other, $topic, 6, 6);
        equal([data_until($client, 6)], [6]);
    },
    starts_and_histories => sub {
        my ($topic, $publisher, $latest, $later) = (topic(), map { client() } 1 .. 3);
        my @positions = publish_range($publisher, $topic, 1, 5);
        $latest->subscribe(topic => $topic, last => 2);
        $later->subscribe(topic => $topic, since => $positions[1]);
        publish_range($publisher, $topic, 6, 6);
        equal([data_until($latest, 6)], [4, 5, 6]);
        equal([data_until($later, 6)], [3, 4, 5, 6]);
        equal([map { $_->{data} } $later->history(topic => $topic, since => $positions[0], limit => 2)], [2 .. 6]);
        equal([map { $_->{data} } $later->history(topic => $topic, last => 3)], [4 .. 6]);
    },
    recovery_over_cuts => sub {
        my ($topic, $client, $publisher) = (topic(), client(), client());
        $client->subscribe(topic => $topic);
        for my $round (0 .. 9) {
            publish_range($publisher, $topic, 10 * $round + 1, 10 * $round + 10);
            $client->next_event($SECONDS_MAX) for 1 .. $round;
            $client->cut;
            equal([data_until($client, 10 * $round + 10)], [11 * $round + 1 .. 10 * $round + 10]);
        }
    },
    recovery_that_is_cut_off_itself => sub {
        my ($topic, $client, $publisher) = (topic(), client(), client());
        my ($first) = publish_range($publisher, $topic, 1, 100);
        $client->subscribe(topic => $topic, since => $first);
        $client->cut;
        equal([data_until($client, 100)], [2 .. 100]);
    },
    expired_publications_are_gaps => sub {
        my ($topic, $client) = (topic(), client());
        my ($first) = publish_range($client, $topic, 1, 1);
        published($client, $topic, data => 'short', @$_) for [ttl_ms => 1], [], [ttl_ms => 1];
        sleep 0.005;
        $client->subscribe(topic => $topic, since => $first);
        published($client, $topic, data => 'end');
        equal([map { offset($_->{to} // $_->{position}) } events_until($client, 'end')], [2 .. 5]);
    },
    restart_loses_what_was_kept => sub {
        my ($topic, $client) = (topic(), client());
        $client->subscribe(topic => $topic);
        publish_range($client, $topic, 1, 1);
        data_until($client, 1);
        kill STOP => $pid;
        waitpid $pid, WUNTRACED;
        my $unsettled = $client->publish(topic => $topic, data => 'a');
        stop();
        start();
        equal(error_of(sub { $client->answer($unsettled) }), 'fate_unknown');
        published($client, $topic, data => 'more');
        equal([data_until($client, 'more')], ['lost', 'more']);
    },
    publishes_are_carried_out_once => sub {
        my ($topic, $client, $witness) = (topic(), client(), client());
        $witness->subscribe(topic => $topic);
        my (@ids, @positions);
        for my $number (1 .. 200) {
            push @ids, $client->publish(topic => $topic, data => "$number", key => 'k', event => 'e');
            next if $number % 10;
            # Some of them have an answer by then, some have arrived without one, and some have not.
            push @positions, $client->answer(shift @ids)->{position} for 1 .. 5;
            $client->cut;
        }
        push @positions, map { $client->answer($_)->{position} } @ids;
        my @seen = map { $witness->next_event($SECONDS_MAX) } @positions;
        equal([map { [@$_{qw(position data)}] } @seen], [map { [$positions[$_], $_ + 1] } 0 .. 199]);
        equal($witness->next_event(0.05), undef);
    },
    keys_are_of_one_publication => sub {
        my ($topic, $client) = (topic(), client());
        my %what = (data => 'a', idempotency_key => $topic);
        my $first = published($client, $topic, %what)->{position};
        equal([@{ published(client(), $topic, %what) }{qw(position duplicate)}], [$first, JSON::PP::true]);
        for my $other ([data => 'b'], [key => 'k'], [event => 'e'], [tags => { a => 'b' }]) {
            equal(error_of(sub { published($client, $topic, %what, @$other) }), 'idempotency_key_reused');
        }
    },
    presence_of_others => sub {
        my ($topic, $here, $comes) = (topic('present'), client(info => { name => 'anna' }), client(info => 'x%/ä'));
        $_->subscribe(topic => $topic) for $here, $comes;
        my ($join) = events_until($here, 'join');
        my $answer = $here->ask(type => 'presence', topic => $topic);
        equal([$join->{info}, map { $_->{info} } sort { ref $a->{info} cmp ref $b->{info} } @{ $answer->{members} }], ['x%/ä', 'x%/ä', { name => 'anna' }]);
        $comes->finish;
        equal([events_until($here, 'leave')], [{ type => 'leave', topic => $topic, connection => $join->{connection} }]);
        published($here, $topic, data => 'a');
        my ($timed) = events_until($here, 'a');
        die "its time is $timed->{time}\n" if abs($timed->{time} / 1000 - time) > $SECONDS_MAX;
    },
    gaps_of_a_slow_consumer => sub {
        my ($topic, $slow, $publisher) = (topic('slow'), client(), client());
        $slow->subscribe(topic => $topic);
        published($publisher, $topic, bytes => 'x' x 20_000) for 1 .. 400;
        published($publisher, $topic, data => 'end');
        my ($gaps, $next) = (0, 1);
        for my $event (events_until($slow, 'end')) {
            $gaps++ if $event->{type} eq 'gap';
            equal(offset($event->{from} // $event->{position}), $next);
            $next = 1 + offset($event->{to} // $event->{position});
        }
        equal([$next, $gaps > 0], [402, 1 == 1]);
    },
    errors_and_batches => sub {
        my ($topic, $client) = (topic(), client());
        $client->subscribe(topic => $topic);
        my %wrong = (
            already_subscribed => { topic => $topic }, invalid_topic => { topic => '/a' }, invalid_pattern => { pattern => 'a/**/b' },
            invalid_position => { topic => 'a', since => 'a' }, invalid_command => { topic => 'a', x => 1 },
        );
        equal(error_of(sub { $client->subscribe(%{ $wrong{$_} }) }), $_) for keys %wrong;
        equal(error_of(sub { $client->unsubscribe(topic => 'a') }), 'not_subscribed');
        equal(error_of(sub { published($client, $topic, bytes => 'x' x 50_001) }), 'too_big');
        $client->_write(map { { type => 'ping', id => $_ } } 70, 71);
        equal([map { $client->answer($_)->{type} } 70, 71], ['pong', 'pong']);
    },
);

$| = 1;
start();
my %count = (ok => 0, FAILED => 0);
for my $name (sort keys %tests) {
    for (qw(umbel.v1 umbel.v1.bin)) {
        $framing = $_;
        my $outcome = eval { $tests{$name}->(); 1 } ? 'ok' : 'FAILED';
        $count{$outcome}++;
        printf "%-7s %s, %s\n%s", $outcome, $name, $framing, $outcome eq 'ok' ? '' : '  | ' . (ref $@ ? $JSON->encode($@) . "\n" : $@);
    }
}
print "$count{ok} passed, $count{FAILED} failed\n";
exit($count{FAILED} ? 1 : 0);
