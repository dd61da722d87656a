# The compact framing, umbel.v1.bin: binary messages from and to the shape that their JSON has.
package Umbel::Compact;
use v5.36;
use List::Util qw(sum0);

use constant { TEXT => 1, BINARY => 2, PUBLISH_TEXT => 3, PUBLISH_BINARY => 4, FIRST_SENT_NONE => 0xffff_ffff };
use constant { TAG => 5, TIME => 6, TTL_MS => 7 };
my %STRINGS = (1 => 'event', 2 => 'message_id', 3 => 'content_type', 4 => 'publisher');

sub _utf8 ($text) {
    utf8::encode($text);
    return $text;
}

sub _text ($bytes) {
    utf8::decode($bytes) or die "text is not UTF-8\n";
    return $bytes;
}

# A publication as JSON has it, but that a binary payload is `bytes`; nothing for a type that is not known.
sub publication ($message) {
    my ($type, $flags, $epoch, $offset, $topic, $rest) = unpack 'C C Q> Q> C/a* a*', $message;
    return if $type != TEXT && $type != BINARY;
    my %said = (type => 'publication', topic => _text($topic), position => sprintf('%016x:%d', $epoch, $offset));
    ($said{pattern}, $rest) = unpack 'C/a* a*', $rest if $flags & 1;
    ($said{key}, $rest) = unpack 'C/a* a*', $rest if $flags & 2;
    (my $fields, $rest) = unpack 'n/a* a*', $rest if $flags & 4;
    my @fields = unpack '(C n/a*)*', $fields // '';
    while (my ($what, $value) = splice @fields, 0, 2) {
        my ($name, $tag) = unpack 'C/a* a*', $value if $what == TAG;
        $said{tags}{$name} = _text($tag) if $what == TAG;
        $said{time} = unpack 'Q>', $value if $what == TIME;
        $said{ $STRINGS{$what} } = $value if $STRINGS{$what};
    }
    $said{$_} = _text($said{$_}) for grep { defined $said{$_} } 'pattern', 'key', values %STRINGS;
    return { %said, $type == TEXT ? (data => _text($rest)) : (bytes => $rest) };
}

# The binary message of a publish, whose payload is `data` or `bytes`.
sub publish ($command) {
    my $tags = $command->{tags} // {};
    my @fields = (
        (map { [$_, _utf8($command->{ $STRINGS{$_} })] } grep { defined $command->{ $STRINGS{$_} } } sort keys %STRINGS),
        (map { [TAG, pack('C/a* a*', $_, _utf8($tags->{$_}))] } sort keys %$tags),
        (map { [TTL_MS, pack('Q>', $_)] } grep { defined } $command->{ttl_ms}),
    );
    my ($key, $once) = map { defined ? _utf8($_) : undef } @$command{qw(key idempotency_key)};
    my %flags = (1, defined $command->{id}, 2, defined $key, 4, $command->{receipt}, 8, defined $once, 16, scalar @fields);
    return join '', pack('C C', defined $command->{data} ? PUBLISH_TEXT : PUBLISH_BINARY, sum0(grep { $flags{$_} } keys %flags)),
        defined $command->{id} ? pack('N', $command->{id}) : (),
        pack('C/a*', _utf8($command->{topic})),
        defined $key ? pack('C/a*', $key) : (),
        defined $once ? pack('C/a* N', $once, $command->{first_sent_ms} // FIRST_SENT_NONE) : (),
        @fields ? pack('n/a*', join '', map { pack 'C n/a*', @$_ } @fields) : (),
        defined $command->{data} ? _utf8($command->{data}) : $command->{bytes};
}

1;
