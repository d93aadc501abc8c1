package t;

import com.amazonaws.services.lambda.runtime.Context;
import com.amazonaws.services.lambda.runtime.RequestHandler;
import com.amazonaws.services.lambda.runtime.RequestStreamHandler;
import com.amazonaws.services.lambda.runtime.logging.LogLevel;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** Public methods that are handlers, one for each signature, and some that fail. */
public class Handlers {
    private static int count;

    public int counts() { return ++count; }
    public String text(String s) { return s + "!"; }
    public long number(int n, Context c) { return n * 2L; }
    public int sum(List<Integer> list) { return list.stream().mapToInt(Integer::intValue).sum(); }
    public void nothing(Map<String, Object> event) {}
    public String id(Context c) { return c.getAwsRequestId(); }
    public Greeting greet(Person p) { return new Greeting("hello " + p.getName(), p.getAge() + 1); }
    public void copies(InputStream in, OutputStream out) throws IOException { in.transferTo(out); }
    public Object jar(String name) throws Exception { return Class.forName(name).getMethod("say").invoke(null); }
    public String property(String name) { return System.getProperty(name); }
    public long heap() { return Runtime.getRuntime().maxMemory() >> 20; }
    public Object cyclic() { Loop l = new Loop(); l.self = l; return l; }

    /** How many classes came from the archive that was made with the client. */
    public long archived() throws IOException {
        return Files.lines(Path.of("/tmp/classes")).filter(l -> l.contains("shared objects file (top)")).count();
    }

    public String fails(Map<String, Object> event) { count++; throw new IllegalStateException("bad " + event.get("name")); }
    public String silent() { throw new UnsupportedOperationException(); }
    public String caused() { throw new RuntimeException("outer", new IOException("inner")); }
    public String exits(int status) { System.out.println("leaving"); System.exit(status); return null; }
    public String overflows() { return overflows(); }

    public Map<String, Object> context(Object event, Context c) {
        Map<String, Object> m = new LinkedHashMap<>();
        m.put("function", c.getFunctionName());
        m.put("version", c.getFunctionVersion());
        m.put("memory", c.getMemoryLimitInMB());
        m.put("arn", c.getInvokedFunctionArn());
        m.put("group", c.getLogGroupName());
        m.put("stream", c.getLogStreamName().contains("[" + c.getFunctionVersion() + "]"));
        m.put("left", c.getRemainingTimeInMillis() > 0 && c.getRemainingTimeInMillis() <= 60_000);
        m.put("app", c.getClientContext() == null ? null : c.getClientContext().getClient().getAppTitle());
        m.put("custom", c.getClientContext() == null ? null : c.getClientContext().getCustom().get("k"));
        m.put("trace", System.getProperty("com.amazonaws.xray.traceHeader", "").startsWith("Root=1-"));
        m.put("execution", System.getenv("AWS_EXECUTION_ENV"));
        return m;
    }

    public void logs(Object event, Context c) {
        System.out.println("printed\nin lines");
        c.getLogger().log("logged\nat once");
        c.getLogger().log("a debug message", LogLevel.DEBUG);
        c.getLogger().log("a warning", LogLevel.WARN);
    }

    public static class Person {
        private String name;
        private int age;
        public String getName() { return name; }
        public void setName(String n) { name = n; }
        public int getAge() { return age; }
        public void setAge(int a) { age = a; }
    }

    public record Greeting(String text, int next) {
        public String getText() { return text; }
        public int getNext() { return next; }
    }

    public static class Loop {
        Loop self;
        public Loop getSelf() { return self; }
    }

    public static class Typed implements RequestHandler<Person, String> {
        public String handleRequest(Person p, Context c) { return p.getName(); }
    }

    public static class Streams implements RequestStreamHandler {
        public void handleRequest(InputStream in, OutputStream out, Context c) throws IOException {
            out.write(new String(in.readAllBytes()).toUpperCase().getBytes());
        }
    }

    public static class NoConstructor {
        public NoConstructor(int n) {}
        public String h(String s) { return s; }
    }

    public class Inner {
        public String h(String s) { return s; }
    }

    public static class Broken {
        static { System.out.println("loading"); if (true) throw new IllegalStateException("no database"); }
        public String h(String s) { return s; }
    }
}
