// The JDK's own server for the opinion tier: java Server.java PORT. The targets are those of tests/servers/README.md.

import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.util.Arrays;
import java.util.concurrent.Executors;

public class Server {
    public static void main(String[] arguments) throws IOException {
        int port = Integer.parseInt(arguments[0]);
        HttpServer server = HttpServer.create(new InetSocketAddress(InetAddress.getByName("127.0.0.1"), port), 0);
        server.createContext("/", Server::answer);
        server.setExecutor(Executors.newCachedThreadPool());
        server.start();
    }

    private static byte[] text(int size) {
        byte[] bytes = new byte[size];
        Arrays.fill(bytes, (byte) 'j');
        return bytes;
    }

    private static void answer(HttpExchange exchange) throws IOException {
        String[] words = exchange.getRequestURI().getPath().split("/");
        String what = words.length > 1 ? words[1] : "";
        int first = words.length > 2 ? Integer.parseInt(words[2]) : 0;
        int second = words.length > 3 ? Integer.parseInt(words[3]) : 0;
        switch (what) {
            case "size" -> send(exchange, 200, text(first));
            case "chunked" -> {
                exchange.sendResponseHeaders(200, 0);
                for (int chunk = 0; chunk < first; chunk++) {
                    exchange.getResponseBody().write(text(second));
                    exchange.getResponseBody().flush();
                }
            }
            case "status" -> send(exchange, first, text(first == 204 || first == 304 ? 0 : 10));
            case "headers" -> {
                for (int number = 0; number < first; number++) {
                    exchange.getResponseHeaders().add("X-Header-" + number, "v".repeat(second));
                }
                send(exchange, 200, text(4));
            }
            case "redirect" -> {
                exchange.getResponseHeaders().add("Location", "/size/10");
                send(exchange, 302, text(0));
            }
            case "cut" -> {
                exchange.sendResponseHeaders(200, 2L * first);
                exchange.getResponseBody().write(text(first));
                exchange.getResponseBody().flush();
                throw new IOException("in the middle of the answer");
            }
            case "echo" -> send(exchange, 200, exchange.getRequestBody().readAllBytes());
            // Answers before the request's body is read.
            case "refuse" -> send(exchange, 413, text(8));
            default -> send(exchange, 404, text(12));
        }
        exchange.close();
    }

    /** To HEAD the same without the body; -1 is no body, 0 would be chunks. */
    private static void send(HttpExchange exchange, int status, byte[] body) throws IOException {
        boolean head = exchange.getRequestMethod().equals("HEAD");
        if (head) {
            exchange.getResponseHeaders().add("Content-Length", Integer.toString(body.length));
        }
        exchange.sendResponseHeaders(status, head || body.length == 0 ? -1 : body.length);
        if (!head && body.length > 0) {
            exchange.getResponseBody().write(body);
        }
    }
}
