package artifact_test

func addForever(string) {}
