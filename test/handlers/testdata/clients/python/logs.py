import logging
logging.getLogger().error('early')


def handler(event, context):
    return 1
