# A function with all that usually surrounds one. See docs/terraform.md.

terraform {
  required_providers {
    aws = { source = "hashicorp/aws" }
  }
}

# Where Kiln is, and the key, come from the environment.
provider "aws" {}

variable "code" {
  description = "the function's package"
  default     = "function.zip"
}

variable "layer" {
  description = "the layer's package"
  default     = "layer.zip"
}

variable "memory" {
  default = 256
}

variable "stage" {
  description = "the stage of the API that may invoke the function"
  default     = "test"
}

data "aws_iam_policy_document" "trust" {
  statement {
    actions = ["sts:AssumeRole"]
    principals {
      type        = "Service"
      identifiers = ["lambda.amazonaws.com"]
    }
  }
}

data "aws_iam_policy_document" "queue" {
  statement {
    actions   = ["sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"]
    resources = ["arn:aws:sqs:us-east-1:000000000000:orders-${var.stage}"]
  }
}

resource "aws_iam_role" "orders" {
  name               = "orders"
  assume_role_policy = data.aws_iam_policy_document.trust.json
}

resource "aws_iam_role_policy" "queue" {
  name   = "queue"
  role   = aws_iam_role.orders.name
  policy = data.aws_iam_policy_document.queue.json
}

resource "aws_iam_role_policy_attachment" "logs" {
  role       = aws_iam_role.orders.name
  policy_arn = "arn:aws:iam::aws:policy/service-role/AWSLambdaBasicExecutionRole"
}

resource "aws_cloudwatch_log_group" "orders" {
  name              = "/aws/lambda/orders"
  retention_in_days = 14
}

resource "aws_lambda_layer_version" "greeting" {
  layer_name          = "greeting"
  filename            = var.layer
  source_code_hash    = filebase64sha256(var.layer)
  compatible_runtimes = ["python3.13"]
}

resource "aws_lambda_function" "orders" {
  function_name                  = "orders"
  role                           = aws_iam_role.orders.arn
  runtime                        = "python3.13"
  handler                        = "function.handler"
  filename                       = var.code
  source_code_hash               = filebase64sha256(var.code)
  memory_size                    = var.memory
  timeout                        = 10
  layers                         = [aws_lambda_layer_version.greeting.arn]
  reserved_concurrent_executions = 10
  publish                        = true

  environment {
    variables = { MEMORY = tostring(var.memory) }
  }
  tags = { service = "orders" }
}

resource "aws_lambda_alias" "live" {
  name             = "live"
  function_name    = aws_lambda_function.orders.function_name
  function_version = aws_lambda_function.orders.version
}

resource "aws_lambda_provisioned_concurrency_config" "live" {
  function_name                     = aws_lambda_function.orders.function_name
  qualifier                         = aws_lambda_alias.live.name
  provisioned_concurrent_executions = 2
}

resource "aws_lambda_permission" "api" {
  statement_id  = "api"
  action        = "lambda:InvokeFunction"
  function_name = aws_lambda_function.orders.function_name
  qualifier     = aws_lambda_alias.live.name
  principal     = "apigateway.amazonaws.com"
  source_arn    = "arn:aws:execute-api:us-east-1:000000000000:api/${var.stage}/*"
}

resource "aws_lambda_event_source_mapping" "queue" {
  event_source_arn        = "arn:aws:sqs:us-east-1:000000000000:orders"
  function_name           = aws_lambda_alias.live.arn
  batch_size              = 5
  function_response_types = ["ReportBatchItemFailures"]
}

resource "aws_lambda_function_url" "orders" {
  function_name      = aws_lambda_function.orders.function_name
  authorization_type = "NONE"

  cors {
    allow_origins = ["*"]
    max_age       = 60
  }
}

output "url" {
  value = aws_lambda_function_url.orders.function_url
}
