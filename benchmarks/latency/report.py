"""stub"""
def write_reports(document, html, markdown, quiet):
    return 0
