// The WebSocket and the HTTP of Java's own java.net.http against UMBEL_URL.
// Run by tests/clients/run, without a compile step: `java JavaClient.java` (Java 17 or later).
// Closes with `N passed, N failed`.

import java.io.ByteArrayOutputStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.net.http.WebSocket;
import java.net.http.WebSocketHandshakeException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.UUID;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

public final class JavaClient {
    static final String URL = System.getenv("UMBEL_URL").replaceAll("/$", "");
    static final String WEBSOCKET_URL = URL.replaceFirst("^http", "ws");
    static final long DEADLINE_SECONDS = 20;
    static final int PUBLICATIONS_EACH = 20;
    static final Pattern OFFSET = Pattern.compile("\"offset\"\\s*:\\s*(\\d+)");

    // By default it asks for HTTP/2 in the headers of its first request of plain HTTP
    // (`Upgrade: h2c`), and a server of HTTP/1.1 has to answer as if it had not.
    static final HttpClient HTTP = HttpClient.newHttpClient();

    /** One connection. What arrives waits in queues; messages are Strings or byte arrays. */
    static final class Connection implements WebSocket.Listener {
        final BlockingQueue<Object> messages = new LinkedBlockingQueue<>();
        final BlockingQueue<byte[]> pongs = new LinkedBlockingQueue<>();
        final CompletableFuture<Integer> closed = new CompletableFuture<>();
        private final StringBuilder text = new StringBuilder();
        private final ByteArrayOutputStream binary = new ByteArrayOutputStream();
        WebSocket socket;

        static Connection open(String path) throws Exception {
            Connection self = new Connection();
            self.socket = HTTP.newWebSocketBuilder()
                    .buildAsync(URI.create(WEBSOCKET_URL + path), self)
                    .get(DEADLINE_SECONDS, TimeUnit.SECONDS);
            return self;
        }

        @Override
        public CompletionStage<?> onText(WebSocket from, CharSequence part, boolean last) {
            text.append(part);
            if (last) {
                messages.add(text.toString());
                text.setLength(0);
            }
            from.request(1);
            return null;
        }

        @Override
        public CompletionStage<?> onBinary(WebSocket from, ByteBuffer part, boolean last) {
            binary.writeBytes(bytes(part));
            if (last) {
                messages.add(binary.toByteArray());
                binary.reset();
            }
            from.request(1);
            return null;
        }

        @Override
        public CompletionStage<?> onPong(WebSocket from, ByteBuffer payload) {
            pongs.add(bytes(payload));
            from.request(1);
            return null;
        }

        @Override
        public CompletionStage<?> onClose(WebSocket from, int code, String reason) {
            closed.complete(code);
            return null;
        }

        @Override
        public void onError(WebSocket from, Throwable error) {
            closed.completeExceptionally(error);
        }

        void send(String message) throws Exception {
            sendPart(message, true);
        }

        void sendPart(String part, boolean last) throws Exception {
            socket.sendText(part, last).get(DEADLINE_SECONDS, TimeUnit.SECONDS);
        }

        void sendPart(byte[] part, boolean last) throws Exception {
            socket.sendBinary(ByteBuffer.wrap(part), last).get(DEADLINE_SECONDS, TimeUnit.SECONDS);
        }

        Object receive() throws Exception {
            return within(messages);
        }

        /** Returns the code of the close frame that answers. */
        int close(int code, String reason) throws Exception {
            socket.sendClose(code, reason).get(DEADLINE_SECONDS, TimeUnit.SECONDS);
            return closed.get(DEADLINE_SECONDS, TimeUnit.SECONDS);
        }

        private static byte[] bytes(ByteBuffer buffer) {
            byte[] bytes = new byte[buffer.remaining()];
            buffer.get(bytes);
            return bytes;
        }
    }

    interface Check {
        void run() throws Exception;
    }

    static int passed = 0;
    static int failed = 0;

    static void check(String name, Check check) {
        try {
            check.run();
            passed += 1;
            System.out.println("ok      " + name);
        } catch (Exception | AssertionError fault) {
            failed += 1;
            System.out.println("FAILED  " + name + ": " + fault);
        }
    }

    static void require(boolean holds, String what) {
        if (!holds) {
            throw new AssertionError(what);
        }
    }

    static <T> T within(BlockingQueue<T> queue) throws Exception {
        T item = queue.poll(DEADLINE_SECONDS, TimeUnit.SECONDS);
        require(item != null, "nothing came in time");
        return item;
    }

    static void requireText(Object message, String wanted) {
        require(wanted.equals(message), "another message came than '" + wanted + "'");
    }

    static void requireBinary(Object message, byte[] wanted) {
        require(message instanceof byte[], "no binary message came");
        require(Arrays.equals((byte[]) message, wanted), "other bytes came");
    }

    static void echoText(String message) throws Exception {
        Connection connection = Connection.open("/echo");
        connection.send(message);
        Object echoed = connection.receive();
        // The message may be long; a report of it would help nobody.
        require(message.equals(echoed), "what came back is not what was sent");
        connection.close(1000, "");
    }

    static void echoBinary(byte[] message) throws Exception {
        Connection connection = Connection.open("/echo");
        connection.sendPart(message, true);
        requireBinary(connection.receive(), message);
        connection.close(1000, "");
    }

    static void fragments() throws Exception {
        Connection connection = Connection.open("/echo");
        for (String part : List.of("um", "", "bel")) {
            connection.sendPart(part, part.equals("bel"));
        }
        requireText(connection.receive(), "umbel");
        connection.sendPart(allBytes(100), false);
        connection.sendPart(new byte[0], false);
        connection.sendPart(new byte[] {1, 2, 3}, true);
        byte[] whole = Arrays.copyOf(allBytes(100), 103);
        System.arraycopy(new byte[] {1, 2, 3}, 0, whole, 100, 3);
        requireBinary(connection.receive(), whole);
        connection.close(1000, "");
    }

    static void ping() throws Exception {
        Connection connection = Connection.open("/echo");
        for (byte[] payload : List.of(allBytes(125), new byte[0])) {
            connection.socket.sendPing(ByteBuffer.wrap(payload)).get(DEADLINE_SECONDS, TimeUnit.SECONDS);
            requireBinary(within(connection.pongs), payload);
        }
        connection.close(1000, "");
    }

    static void closeCode() throws Exception {
        int code = Connection.open("/echo").close(3001, "bye");
        require(code == 3001, "the code that came back is " + code);
    }

    static void refusal() throws Exception {
        try {
            Connection.open("/no-such-endpoint");
        } catch (java.util.concurrent.ExecutionException refused) {
            require(refused.getCause() instanceof WebSocketHandshakeException, "" + refused.getCause());
            int status = ((WebSocketHandshakeException) refused.getCause()).getResponse().statusCode();
            require(status == 404, "the status is " + status);
            return;
        }
        throw new AssertionError("it was accepted");
    }

    /** Publishes over HTTP; returns the offset that the answer names. */
    static long post(HttpClient http, String path, String body) throws Exception {
        HttpRequest request = HttpRequest.newBuilder(URI.create(URL + path))
                .header("Content-Type", "text/plain; charset=utf-8")
                .POST(HttpRequest.BodyPublishers.ofString(body))
                .build();
        HttpResponse<String> response = http.send(request, HttpResponse.BodyHandlers.ofString());
        require(response.statusCode() == 200, response.statusCode() + " " + response.body());
        Matcher offset = OFFSET.matcher(response.body());
        require(offset.find(), "no offset in " + response.body());
        return Long.parseLong(offset.group(1));
    }

    static void subscribersSeeOneOrder() throws Exception {
        String topic = "clients/" + UUID.randomUUID();
        Connection first = Connection.open("/ws/" + topic);
        Connection second = Connection.open("/ws/" + topic);
        List<Object> overWebSocket = new ArrayList<>();
        List<Object> overHttp = new ArrayList<>();
        long previous = -1;
        for (int n = 0; n < PUBLICATIONS_EACH; n += 1) {
            overWebSocket.add("websocket " + n);
            first.send("websocket " + n);
            overHttp.add("http " + n);
            long offset = post(HTTP, "/pub/" + topic, "http " + n);
            require(offset > previous, "offset " + offset + " came after " + previous);
            previous = offset;
        }
        List<Object> seenByFirst = new ArrayList<>();
        List<Object> seenBySecond = new ArrayList<>();
        for (int n = 0; n < 2 * PUBLICATIONS_EACH; n += 1) {
            seenByFirst.add(first.receive());
            seenBySecond.add(second.receive());
        }
        require(seenByFirst.equals(seenBySecond), "two orders: " + seenByFirst + ", " + seenBySecond);
        require(overWebSocket.equals(seenByFirst.stream().filter(overWebSocket::contains).toList()),
                "its own order is broken over WebSocket: " + seenByFirst);
        require(overHttp.equals(seenByFirst.stream().filter(overHttp::contains).toList()),
                "its own order is broken over HTTP: " + seenByFirst);
        first.close(1000, "");
        second.close(1000, "");
    }

    static void postAsksForHttp2() throws Exception {
        // A fresh one, for only the first request on a connection asks.
        post(HttpClient.newBuilder().version(HttpClient.Version.HTTP_2).build(),
                "/pub/clients/" + UUID.randomUUID(), "h2c, if you can");
    }

    static byte[] allBytes(int length) {
        byte[] bytes = new byte[length];
        for (int i = 0; i < length; i += 1) {
            bytes[i] = (byte) i;
        }
        return bytes;
    }

    public static void main(String[] arguments) {
        check("text", () -> echoText("one in, many out: ein Stängel, viele Blüten, 傘"));
        check("empty text", () -> echoText(""));
        check("empty binary", () -> echoBinary(new byte[0]));
        check("all byte values", () -> echoBinary(allBytes(256)));
        check("binary of 16 MiB", () -> echoBinary(allBytes(16 * 1024 * 1024)));
        // One byte, then characters of three: no power of two falls between two characters.
        check("text of 1 MiB", () -> echoText("a" + "€".repeat(349_525)));
        check("fragments", JavaClient::fragments);
        check("ping", JavaClient::ping);
        check("close code comes back", JavaClient::closeCode);
        check("an unknown path is refused", JavaClient::refusal);
        check("subscribers see one order", JavaClient::subscribersSeeOneOrder);
        check("a POST that asks for HTTP/2 is served", JavaClient::postAsksForHttp2);
        System.out.println(passed + " passed, " + failed + " failed");
        System.exit(failed == 0 ? 0 : 1);
    }
}
