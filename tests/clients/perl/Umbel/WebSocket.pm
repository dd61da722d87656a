# A WebSocket from the client's side (RFC 6455), without extensions.
package Umbel::WebSocket;
use v5.36;
use Digest::SHA qw(sha1_base64);
use IO::Select;
use IO::Socket::INET;
use MIME::Base64 qw(encode_base64);
use Time::HiRes qw(time);

use constant { CONTINUATION => 0, TEXT => 1, BINARY => 2, CLOSE => 8, PING => 9, PONG => 10 };
use constant { READ_BYTES => 65_536, MESSAGE_BYTES_MAX => 32 << 20, HEAD_BYTES_MAX => 16_384, OPEN_SECONDS_MAX => 10 };

sub random_bytes ($count) {
    open my $source, '<:raw', '/dev/urandom' or die "/dev/urandom: $!\n";
    sysread($source, my $bytes, $count) == $count or die "/dev/urandom gave too little\n";
    return $bytes;
}

# Connects to a `host`, `port` and `path` by a `protocol`; `headers` are further ones. Dies with a hash that has the
# `reason`, and the HTTP `status` if there is one.
sub new ($class, %to) {
    my $socket = IO::Socket::INET->new(PeerHost => $to{host}, PeerPort => $to{port}, Timeout => OPEN_SECONDS_MAX)
        or die { reason => "cannot connect: $@" };
    $socket->blocking(0);
    my $self = bless { socket => $socket, select => IO::Select->new($socket), in => '' }, $class;
    my $key = encode_base64(random_bytes(16), '');
    $self->{out} = join "\r\n", "GET $to{path} HTTP/1.1", "Host: $to{host}:$to{port}", 'Upgrade: websocket',
        'Connection: Upgrade', "Sec-WebSocket-Key: $key", 'Sec-WebSocket-Version: 13',
        "Sec-WebSocket-Protocol: $to{protocol}", @{ $to{headers} }, '', '';
    $self->_pump_until(sub { $self->{in} =~ /\r\n\r\n/ || length $self->{in} > HEAD_BYTES_MAX });
    my ($status, $lines) = $self->{in} =~ s{\AHTTP/1\.1 (\d{3}).*?\r\n(.*?)\r\n\r\n}{}s ? ($1, $2) : ();
    die { reason => 'no answer to the handshake' } if !$status;
    my %header = map { /\A([^:]+):\s*(.*)/ ? (lc $1, $2) : () } split /\r\n/, $lines;
    if ($status != 101) {
        $self->_pump_until(sub { length $self->{in} >= ($header{'content-length'} // 0) });
        die { status => $status, reason => $self->{in} };
    }
    my $accept = sha1_base64("${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11") . '=';
    die { reason => "it does not speak $to{protocol}" }
        if "$accept $to{protocol}" ne join ' ', map { $header{"sec-websocket-$_"} // '' } 'accept', 'protocol';
    return $self;
}

sub _pump_until ($self, $is_there) {
    my $deadline = time + OPEN_SECONDS_MAX;
    while (!$is_there->() && !$self->{ended} && time < $deadline) {
        $self->_pump($deadline - time);
    }
}

sub send_text ($self, $text) {
    utf8::encode($text);
    $self->_send(TEXT, $text);
}

sub send_binary ($self, $bytes) { $self->_send(BINARY, $bytes) }

sub _send ($self, $opcode, $payload) {
    my $length = length $payload;
    my $size = $length < 126 ? pack('C', 128 | $length)
        : $length < 65_536   ? pack('C n', 128 | 126, $length)
        :                      pack('C Q>', 128 | 127, $length);
    my $mask = random_bytes(4);
    $self->{out} .= pack('C', 128 | $opcode) . $size . $mask . ($payload ^. substr($mask x ($length / 4 + 1), 0, $length));
    $self->_pump(0);
}

# The next message, as {text} or {binary}; or {code, reason} of the end; or nothing within the time.
sub receive ($self, $seconds) {
    my $deadline = time + $seconds;
    while (1) {
        my $message = $self->_take_message // $self->{ended};
        my $left = $deadline - time;
        return $message if $message || $left < 0;
        $self->_pump($left);
    }
}

# Writes what waits and reads what is there, or waits until either can be done.
sub _pump ($self, $seconds) {
    return if $self->{ended};
    my $writes = length $self->{out} ? $self->{select} : undef;
    my ($readable, $writable) = IO::Select->select($self->{select}, $writes, undef, $seconds) or return;
    if (@$writable) {
        local $SIG{PIPE} = 'IGNORE';
        my $count = syswrite $self->{socket}, $self->{out};
        return $self->_end(1006, "$!") if !defined $count && !$!{EAGAIN};
        substr $self->{out}, 0, $count // 0, '';
    }
    if (@$readable) {
        my $count = sysread $self->{socket}, $self->{in}, READ_BYTES, length $self->{in};
        $self->_end(1006, 'the connection broke') if defined $count ? !$count : !$!{EAGAIN};
    }
}

sub _end ($self, $code, $reason) { $self->{ended} //= { code => $code, reason => $reason } }

# The other side broke the RFC.
sub _fail ($self, $code, $reason) {
    $self->finish($code);
    $self->{in} = '';
    $self->_end($code, $reason);
    return;
}

sub _take_message ($self) {
    while (my ($is_last, $opcode, $payload) = $self->_take_frame) {
        if ($opcode == CLOSE) {
            my ($code, $reason) = length $payload ? unpack('n a*', $payload) : (1005, '');
            $self->finish($code == 1005 ? undef : $code);
            return $self->_end($code, $reason);
        }
        $self->_send(PONG, $payload) if $opcode == PING;
        next if $opcode == PING || $opcode == PONG;
        return $self->_fail(1002, 'fragments out of order') if ($opcode == CONTINUATION) != defined $self->{kind};
        $self->{kind} //= $opcode;
        $self->{message} .= $payload;
        return $self->_fail(1009, 'a message is too large') if length $self->{message} > MESSAGE_BYTES_MAX;
        next if !$is_last;
        my ($kind, $message) = delete @$self{qw(kind message)};
        return { binary => $message } if $kind == BINARY;
        return utf8::decode($message) ? { text => $message } : $self->_fail(1007, 'text is not UTF-8');
    }
    return;
}

# Whether the frame is the last of its message, its opcode and its payload; nothing before all of it is there.
sub _take_frame ($self) {
    return if length $self->{in} < 2;
    my ($first, $length) = unpack 'C C', $self->{in};
    my $opcode = $first & 15;
    my $is_wrong = $opcode < CLOSE ? $opcode > BINARY : $opcode > PONG || $length > 125 || $first < 128;
    return $self->_fail(1002, 'a frame that RFC 6455 does not know') if $is_wrong || $first & 0x70 || $length & 128;
    my $head = $length == 127 ? 10 : $length == 126 ? 4 : 2;
    return if length $self->{in} < $head;
    $length = unpack $head == 10 ? 'x2 Q>' : 'x2 n', $self->{in} if $head > 2;
    return $self->_fail(1009, 'a frame is too large') if $length > MESSAGE_BYTES_MAX;
    return if length $self->{in} < $head + $length;
    my $payload = substr $self->{in}, $head, $length;
    substr $self->{in}, 0, $head + $length, '';
    return ($first >> 7, $opcode, $payload);
}

# Sends a close frame, once.
sub finish ($self, $code = undef) {
    $self->_send(CLOSE, defined $code ? pack('n', $code) : '') if !$self->{is_closing}++;
}

# Drops the connection without a word.
sub cut ($self) {
    $self->_end(1006, 'cut off');
    $self->{socket}->close;
}

1;
