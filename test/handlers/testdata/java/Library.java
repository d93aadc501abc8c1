package lib;

/** Comes in a jar, of the function's own or of a layer. */
public class Library {
    public static String say() {
        return Library.class.getProtectionDomain().getCodeSource().getLocation().getPath();
    }
}
