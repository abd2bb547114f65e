import java.nio.file.Path;
import org.codelibs.opensearch.runner.OpenSearchRunner;

/** One node with the settings of a file: the runner's own command gives it no role for pipelines. */
public class Node {
    public static void main(String[] arguments) throws Exception {
        var settings = Path.of(arguments[0]);
        var runner = new OpenSearchRunner();
        runner.setMaxHttpPort(-1);
        Runtime.getRuntime().addShutdownHook(new Thread(() -> close(runner)));
        runner.onBuild((number, builder) -> load(builder, settings)).build("-basePath", arguments[1], "-numOfNode", "1");
        Thread.sleep(Long.MAX_VALUE);
    }

    private static void close(OpenSearchRunner runner) {
        try {
            runner.close();
        } catch (Exception error) {
            error.printStackTrace();
        }
    }

    private static void load(org.opensearch.common.settings.Settings.Builder builder, Path settings) {
        try {
            builder.loadFromPath(settings);
        } catch (java.io.IOException error) {
            throw new java.io.UncheckedIOException(error);
        }
    }
}
