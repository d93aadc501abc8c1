console.log("about to end");
process.exit(2);
