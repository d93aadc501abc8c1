package jetstream_test

func crashWorker() bool { return false }
