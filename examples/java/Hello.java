import com.amazonaws.services.lambda.runtime.Context;
import com.amazonaws.services.lambda.runtime.RequestHandler;
import java.util.Map;

public class Hello implements RequestHandler<Map<String, String>, Map<String, String>> {
    @Override
    public Map<String, String> handleRequest(Map<String, String> event, Context context) {
        context.getLogger().log("greeting " + event.get("name"));
        return Map.of(
            "message", "Hello, " + event.getOrDefault("name", "world") + ", from Java " + System.getProperty("java.version"),
            "requestId", context.getAwsRequestId());
    }
}
